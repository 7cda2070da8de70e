/** Commands, and how to parse a line into a call of one. */

import { suggestion } from '../../conf/suggest.js';
import { printable, UsageError } from '../base/command-errors.js';
import type { AdminSource } from '../views/source.js';
import type { Answer, Format } from './answer.js';

export interface Command {
  /** The command's words, separated by single spaces: `show peers`. */
  readonly name: string;
  /** The arguments, for `help`: `[PATTERN]`. */
  readonly usage: string;
  /** One line. */
  readonly summary: string;
  /** More lines, for `help COMMAND`. */
  readonly details?: readonly string[];
  run(call: Call): Answer | Promise<Answer>;
}

export interface Call {
  readonly source: AdminSource;
  /** The words after the command's name. */
  readonly words: readonly string[];
  /** All commands, for `help`. */
  readonly commands: readonly Command[];
}

export interface ParsedLine {
  readonly command: Command;
  readonly words: readonly string[];
  readonly format: Format;
}

/** Finds the command that a line calls. Throws a `UsageError` that suggests a correction. */
export function parseLine(line: string, commands: readonly Command[]): ParsedLine {
  const { words, format, help } = takeOptions(line.split(/\s+/).filter((word) => word !== ''));
  if (help) words.unshift('help');
  for (let count = words.length; count > 0; count--) {
    const name = words.slice(0, count).join(' ');
    const command = commands.find((candidate) => candidate.name === name);
    if (command !== undefined) return { command, words: words.slice(count), format };
  }
  throw new UsageError(unknown(words, commands));
}

function takeOptions(given: readonly string[]): { words: string[]; format: Format; help: boolean } {
  const words: string[] = [];
  let format: Format = 'text';
  let help = false;
  for (let i = 0; i < given.length; i++) {
    const word = given[i];
    if (!word.startsWith('-')) words.push(word);
    else if (word === '-h' || word === '--help') help = true;
    else if (word === '-o' || word === '--output') format = parseFormat(given[++i]);
    else if (word.startsWith('--output=')) format = parseFormat(word.slice('--output='.length));
    else if (word.startsWith('-o')) format = parseFormat(word.slice('-o'.length));
    else throw new UsageError(`unknown option ${printable(word)}; known: -o json, -o text, --help`);
  }
  return { words, format, help };
}

function parseFormat(text: string | undefined): Format {
  if (text === 'json' || text === 'text') return text;
  throw new UsageError(`-o needs json or text${text === undefined ? '' : `, not ${printable(text)}`}`);
}

function unknown(words: readonly string[], commands: readonly Command[]): string {
  const [first = ''] = words;
  const below = commands.map((command) => command.name).filter((name) => name.startsWith(`${first} `));
  if (below.length > 0) {
    const second = words[1];
    if (second === undefined) return `${first} what? One of: ${below.join(', ')}`;
    const hint = suggestion(`${first} ${second}`, below) || `; there are ${below.join(', ')}`;
    return `unknown command "${printable(`${first} ${second}`)}"${hint}`;
  }
  const names = commands.flatMap((command) => [command.name, command.name.split(' ')[0]]);
  return `unknown command "${printable(first)}"${suggestion(first, names) || '; try help'}`;
}

/** For commands without arguments. Throws a `UsageError`. */
export function expectNoWords(call: Call, name: string): void {
  if (call.words.length > 0) throw new UsageError(`${name} takes no "${printable(call.words[0])}"`);
}

/**
 * `constellation import-nft FILE`: translates a ruleset of nftables. It needs no instance. The
 * rules go to standard output. What was left out goes to standard error.
 */

import { readFileSync } from 'node:fs';
import type { ImportOptions, LeftOut } from '../workers/middleboxes/firewall/import/import-nft.js';
import type { Command } from './admin/command.js';
import { UsageError } from './base/command-errors.js';
import { readRegularFile } from './base/read-file.js';

const FILE_BYTES_MAX = 16 * 1024 * 1024;
const STANDARD_INPUT = '-';
const FORM = 'import-nft FILE [hook=forward|host] [INTERFACE=PORT …]';

export const IMPORT_NFT: Omit<Command, 'run'> = {
  name: 'import-nft',
  usage: 'FILE [hook=forward|host] [INTERFACE=PORT …]',
  summary: 'Translates what "nft list ruleset" printed into rules of the firewall; "-" reads standard input.',
  details: [
    'The rules are printed to standard output, and what was left out, by line, to standard error. Exit code 1: something',
    'was left out that can change a verdict. hook=forward takes the chains for packets that pass, hook=host those for packets',
    'to and from a host that is behind the port "inside"; by default those there are. INTERFACE=PORT says which interface',
    'of the ruleset is which port: import-nft rules.nft eth0=outside eth1=inside. Other interfaces then have no packets.',
    'Without it, name the ports of the configuration as the interfaces.',
  ],
};

interface ImportResult {
  readonly rules: string;
  /** Lines for people. */
  readonly report: readonly string[];
  /** Whether nothing was left out that can change a verdict. */
  readonly isWhole: boolean;
}

/** `words`: the arguments. Throws a `UsageError`, or an error with what is wrong with the file. */
export async function runImport(words: readonly string[]): Promise<ImportResult> {
  const [file, ...settings] = words;
  if (file === undefined) throw new UsageError(`which file? ${FORM}`);
  const options = optionsOf(settings);
  // Loaded only when needed, because it loads the API of middleboxes.
  const { importNft } = await import('../workers/middleboxes/firewall/import/import-nft.js');
  const { text, ports, leftOut } = importNft(readText(file), options);
  const report = leftOut.map((each) => `${file}:${each.line}: ${described(each)}`);
  const counted = leftOut.filter(({ changes }) => changes).length;
  report.push(`${file}: ports of the configuration: ${ports.join(', ')}`);
  if (counted > 0)
    report.push(
      `${file}: ${counted} of these can change a verdict: a packet that such a rule decided about meets the next rules`,
    );
  return { rules: text, report, isWhole: counted === 0 };
}

function described({ what, why, changes }: LeftOut): string {
  return `${changes ? 'left out' : 'not needed or not here'}: ${what}: ${why}`;
}

function optionsOf(settings: readonly string[]): ImportOptions {
  const ports = new Map<string, string>();
  let hook: ImportOptions['hook'];
  for (const setting of settings) {
    const at = setting.indexOf('=');
    const [key, value] = [setting.slice(0, at), setting.slice(at + 1)];
    if (at < 1 || value === '') throw new UsageError(`"${setting}" is no INTERFACE=PORT: ${FORM}`);
    if (key === 'hook') {
      if (value !== 'forward' && value !== 'host') throw new UsageError(`hook is forward or host, not "${value}"`);
      hook = value;
    } else ports.set(key, value);
  }
  return { ...(hook === undefined ? {} : { hook }), ...(ports.size === 0 ? {} : { ports }) };
}

function readText(file: string): string {
  const bytes =
    file === STANDARD_INPUT ? readFileSync(0) : readRegularFile(file, { name: file, bytesMax: FILE_BYTES_MAX });
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Error(`${file} is not UTF-8 text`);
  }
}

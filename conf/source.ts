/** A configuration file as text: its YAML, and the position of each setting in it. */

import {
  type Document,
  isAlias,
  isCollection,
  isMap,
  isNode,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  visit,
} from 'yaml';
import type { Path, Problem } from './problem.js';

/** A problem of the YAML itself, at an offset of the text rather than at a setting. */
interface SyntaxProblem {
  readonly offset: number;
  readonly message: string;
}

export class ConfigSource {
  readonly syntaxProblems: readonly SyntaxProblem[];
  /** Whether `value` is worth checking, even if there are syntax problems. */
  readonly readable: boolean = false;
  /** The content of the YAML. */
  readonly value: unknown;
  private readonly document: Document.Parsed;
  private readonly text: string;
  private readonly lines = new LineCounter();

  constructor(text: string) {
    this.text = text;
    // Errors are worded here, not by the library, which would add an excerpt of the file to each.
    this.document = parseDocument(text, { lineCounter: this.lines, prettyErrors: false });
    const problems = [...this.document.errors, ...this.document.warnings].map((error) => ({
      offset: error.pos[0],
      message: error.code === 'DUPLICATE_KEY' ? duplicateKey(text, error.pos[0]) : `not valid YAML: ${error.message}`,
    }));
    const unusable = unusableNodes(this.document);
    problems.push(...unusable);
    // A document with duplicate keys is still readable, and may have further errors.
    const readable = unusable.length === 0 && this.document.errors.every((error) => error.code === 'DUPLICATE_KEY');
    try {
      if (readable) {
        this.value = this.document.toJS({ maxAliasCount: 100 });
        this.readable = true;
      }
    } catch (error) {
      problems.push({ offset: 0, message: `not valid YAML: ${(error as Error).message}` });
    }
    this.syntaxProblems = problems.sort((a, b) => a.offset - b.offset);
  }

  /** The offset of a problem. For a missing setting, the offset of the mapping that lacks it. */
  locate(problem: Problem): number {
    return this.find(problem.path, problem.at);
  }

  /** `line:column`, counted from 1. */
  position(offset: number): string {
    const { line, col } = this.lines.linePos(offset);
    return `${Math.max(1, line)}:${Math.max(1, col)}`;
  }

  /**
   * `line:column` of a place in a text that is written as a YAML block at `offset`. `null` if the
   * text is not written as a block.
   */
  positionInBlock(offset: number, line: number, column: number): string | null {
    if (this.text[offset] !== '|') return null;
    const first = this.lines.linePos(offset).line;
    const lines = this.text.split('\n').slice(first);
    const indent = lines.find((text) => text.trim() !== '')?.match(/^ */)?.[0].length ?? 0;
    return `${first + line}:${indent + column}`;
  }

  private find(path: Path, at: 'key' | 'value'): number {
    let node: unknown = this.document.contents;
    let offset = startOf(node) ?? 0;
    for (const [i, step] of path.entries()) {
      const last = i === path.length - 1;
      const found = this.step(node, step);
      if (found === undefined) return offset;
      node = found.value;
      offset = (last && at === 'key' ? undefined : startOf(node)) ?? startOf(found.key) ?? offset;
    }
    return offset;
  }

  private step(parent: unknown, step: Path[number]): { key: unknown; value: unknown } | undefined {
    const node = isAlias(parent) ? parent.resolve(this.document) : parent;
    if (isSeq(node)) return { key: undefined, value: node.items[Number(step)] };
    // If several keys are equal, the last one counts.
    if (isMap(node)) return node.items.findLast((pair) => keyText(pair.key) === String(step));
    return undefined;
  }
}

function keyText(key: unknown): string {
  return String(isScalar(key) ? key.value : key);
}

function startOf(node: unknown): number | undefined {
  const found = isNode(node) ? (node as Node).range?.[0] : undefined;
  // The value of `key:` with nothing after it has an unhelpful position. The key's is used instead.
  return isScalar(node) && node.value === null && node.source === '' ? undefined : found;
}

/**
 * Problems that the library finds only when it makes values, or only warns about, without a
 * position.
 */
function unusableNodes(document: Document.Parsed): SyntaxProblem[] {
  const anchors = new Set<string>();
  const problems: SyntaxProblem[] = [];
  visit(document, {
    Pair(_key, pair) {
      if (!isCollection(pair.key)) return;
      problems.push({ offset: startOf(pair.key) ?? 0, message: 'not valid here: a key has to be one word' });
    },
    Node(_key, node) {
      if (!isAlias(node)) {
        if (node.anchor !== undefined) anchors.add(node.anchor);
      } else if (!anchors.has(node.source)) {
        problems.push({ offset: startOf(node) ?? 0, message: `not valid YAML: no &${node.source} stands before this` });
      }
    },
  });
  return problems;
}

function duplicateKey(text: string, offset: number): string {
  const key = /^[^\s:]*/.exec(text.slice(offset, offset + 64))?.[0] ?? '';
  return `the key "${key}" is given twice in one mapping; remove one of the two`;
}

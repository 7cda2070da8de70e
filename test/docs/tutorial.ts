/** What is written in docs/tutorial.md: its files and its commands. */

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface Block {
  readonly language: string;
  /** The file it is to be saved as; none for commands. */
  readonly file: string | undefined;
  readonly text: string;
}

const TEXT = readFileSync(fileURLToPath(new URL('../../../docs/tutorial.md', import.meta.url)), 'utf8');

export const BLOCKS: readonly Block[] = [...TEXT.matchAll(/^```(\w+)(?: (\S+))?\n([\s\S]*?)^```$/gm)].map(
  ([, language, file, text]) => ({ language, file, text }),
);

export function tutorialFile(name: string): string {
  const block = BLOCKS.find(({ file }) => file === name);
  if (block === undefined) throw new Error(`the tutorial has no file ${name}`);
  return block.text;
}

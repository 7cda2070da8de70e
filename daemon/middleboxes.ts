/** The middleboxes that come with Constellation, by the names the configuration knows them by. */

import type { Middlebox } from '../workers/middlebox.js';

const BUILT_IN = ['nat'] as const;

/** Address of the module of a built-in middlebox, for whichever thread is to import it. */
export function middleboxModule(name: string): string {
  if (!(BUILT_IN as readonly string[]).includes(name)) throw new Error(`no middlebox is called ${name}`);
  return new URL(`../workers/middleboxes/${name}.js`, import.meta.url).href;
}

/** The declaration of one middlebox: what its module exports as default. */
export async function loadMiddlebox(name: string): Promise<Middlebox> {
  const { default: middlebox } = (await import(middleboxModule(name))) as { default: Middlebox };
  if (middlebox.name !== name) throw new Error(`the middlebox ${name} calls itself ${middlebox.name}`);
  return middlebox;
}

/** The declarations of all of them: the configuration's schema is made from these. */
export function builtInMiddleboxes(): Promise<Middlebox[]> {
  return Promise.all(BUILT_IN.map(loadMiddlebox));
}

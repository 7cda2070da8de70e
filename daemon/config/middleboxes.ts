/**
 * The middleboxes that a configuration can name: the built-in ones, and files of the user's own.
 */

import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { isOwnMiddlebox, type MiddleboxDeclaration } from '../../conf/middleboxes.js';
import type { Problem } from '../../conf/problem.js';
import type { Middlebox, Sides } from '../../workers/api/middlebox.js';
import { sidesOf, stateOf } from '../../workers/plane/chain.js';
import { loadMiddlebox } from '../../workers/plane/load.js';

/** Files of the built-in middleboxes, relative to the folder of middleboxes. */
const BUILT_IN: Readonly<Record<string, string>> = {
  nat: 'nat/index.js',
  idps: 'idps/index.js',
  firewall: 'firewall/index.js',
};

/** URL of a built-in middlebox's module, for any thread that imports it. */
export function middleboxModule(name: string): string {
  if (!Object.hasOwn(BUILT_IN, name)) throw new Error(`no middlebox is called ${name}`);
  return new URL(`../../workers/middleboxes/${BUILT_IN[name]}`, import.meta.url).href;
}

/** The declarations of all built-in middleboxes. The configuration's schema is made from these. */
export function builtInMiddleboxes(): Promise<MiddleboxDeclaration[]> {
  return Promise.all(
    Object.keys(BUILT_IN).map(async (name) => {
      const middlebox = await loadMiddlebox(middleboxModule(name));
      if (middlebox.name !== name) throw new Error(`the middlebox ${name} calls itself ${middlebox.name}`);
      return declarationOf(middlebox);
    }),
  );
}

/**
 * The declarations of the user's own middleboxes in a configuration, and the errors of those that
 * cannot be loaded.
 */
export async function ownMiddleboxes(
  value: unknown,
  folder: string,
): Promise<{ declarations: MiddleboxDeclaration[]; problems: Problem[] }> {
  const declarations: MiddleboxDeclaration[] = [];
  const problems: Problem[] = [];
  const written = (value as { readonly middleboxes?: unknown } | null)?.middleboxes;
  for (const [i, entry] of (Array.isArray(written) ? written : []).entries())
    for (const key of Object.keys(typeof entry === 'object' && entry !== null ? entry : {}).filter(isOwnMiddlebox)) {
      const module = pathToFileURL(resolve(folder, key)).href;
      try {
        declarations.push(declarationOf(await loadMiddlebox(module), { key, module }));
      } catch (error) {
        problems.push({ path: ['middleboxes', i, key], at: 'key', message: (error as Error).message });
      }
    }
  return { declarations, problems };
}

function declarationOf(middlebox: Middlebox, own?: MiddleboxDeclaration['own']): MiddleboxDeclaration {
  const { name, help, options, modes, addresses } = middlebox;
  const state: MiddleboxDeclaration['state'] = (resolved, shared) => stateOf(middlebox, resolved, shared);
  return {
    name,
    help,
    options,
    state,
    ...(modes !== undefined && { modes }),
    ...(addresses !== undefined && { addresses }),
    ...(middlebox.sides !== undefined && { sides: (resolved) => sidesOf(middlebox, resolved) as Sides }),
    ...(own !== undefined && { own }),
  };
}

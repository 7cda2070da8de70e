/**
 * Middleboxes of the user's own import `constellation` by a link in their folder, which leads to
 * the release that was installed last. A thread must load the release that its instance runs, also
 * after another one was installed: so where the link leads elsewhere, the import is directed here.
 */

import * as nodeModule from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const API = new URL('./api.js', import.meta.url).href;
const NAME = 'constellation';

/** Hooks that run in a thread of their own (Node before 22.15). */
const HOOKS = `
let api;
export const initialize = (data) => { api = data; };
export const resolve = (specifier, context, next) =>
  specifier === '${NAME}' ? { url: api, format: 'module', shortCircuit: true } : next(specifier, context);
`;

type Resolve = (specifier: string, context: unknown, next: (specifier: string, context: unknown) => unknown) => unknown;
interface SynchronousHooks {
  readonly registerHooks?: (hooks: { readonly resolve: Resolve }) => unknown;
}

let isDirected = false;

/** Before the module of a middlebox is imported by this thread. */
export function directImports(module: string): void {
  const linked = linkedApi(module);
  if (isDirected || linked === null || linked === API) return;
  isDirected = true;
  const { registerHooks } = nodeModule as SynchronousHooks;
  if (registerHooks === undefined) {
    nodeModule.register(`data:text/javascript,${encodeURIComponent(HOOKS)}`, { data: API });
    return;
  }
  registerHooks({
    resolve: (specifier, context, next) =>
      specifier === NAME ? { url: API, format: 'module', shortCircuit: true } : next(specifier, context),
  });
}

/** What `constellation` means in a module; `null`: nothing, and its import will say so. */
function linkedApi(module: string): string | null {
  try {
    return pathToFileURL(nodeModule.createRequire(fileURLToPath(module)).resolve(NAME)).href;
  } catch {
    return null;
  }
}

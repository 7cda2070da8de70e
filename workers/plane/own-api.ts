/**
 * Directs a user's own middleboxes to the API of the running release. They import `constellation`
 * by a link in their folder, which leads to the release that was installed last. A thread must load
 * the release that its instance runs, even after another was installed. So if the link leads to
 * another release, the import is redirected to this one.
 */

import * as nodeModule from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const API = new URL('../api/api.js', import.meta.url).href;
const NAME = 'constellation';

/** Hooks that run in a thread of their own (Node before 22.15). */
const HOOKS = `
let api;
const initialize = (data) => { api = data; };
const resolve = (specifier, context, next) =>
  specifier === '${NAME}' ? { url: api, format: 'module', shortCircuit: true } : next(specifier, context);
`;

type Resolve = (specifier: string, context: unknown, next: (specifier: string, context: unknown) => unknown) => unknown;
interface SynchronousHooks {
  readonly registerHooks?: (hooks: { readonly resolve: Resolve }) => unknown;
}

let isDirected = false;

/** Call it before this thread imports the module of a middlebox. */
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

/**
 * What `constellation` resolves to in a module. `null` if it does not resolve; the import then
 * reports that.
 */
function linkedApi(module: string): string | null {
  try {
    return pathToFileURL(nodeModule.createRequire(fileURLToPath(module)).resolve(NAME)).href;
  } catch {
    return null;
  }
}

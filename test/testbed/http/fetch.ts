/** Starts the testbed's web server and its downloads in nodes. */

import { fileURLToPath } from 'node:url';
import type { Program } from '../program.js';
import type { Testbed } from '../testbed.js';
import type { Fetched, Load } from './load.js';

const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export async function startServer(testbed: Testbed, node: string, port = 80, host = '0.0.0.0'): Promise<Program> {
  const server = testbed.start(node, `http-${node}`, [process.execPath, script('server.js'), String(port), host]);
  await server.waitFor(/^ready$/m);
  return server;
}

let loads = 0;

/**
 * Starts downloads in a node and reports each when it ends. `program.endInput()` stops it in an
 * orderly way.
 */
export function startLoad(
  testbed: Testbed,
  node: string,
  load: Load,
  onFetched: (fetched: Fetched) => void,
): { program: Program; done: Promise<void> } {
  const program = testbed.start(node, `load-${++loads}`, [process.execPath, script('load.js'), JSON.stringify(load)]);
  let partial = '';
  program.onOutput((text) => {
    const lines = (partial + text).split('\n');
    partial = lines.pop() ?? '';
    for (const line of lines) if (line.startsWith('{')) onFetched(JSON.parse(line) as Fetched);
  });
  const done = program.exited.then(({ code }) => {
    if (code !== 0) throw new Error(`the downloads ended with code ${code}:\n${program.tail()}`);
  });
  done.catch(() => {}); // whoever waits for it is told; nobody may be waiting yet
  return { program, done };
}

/** Runs a load of `count` downloads to its end. Returns all of them. */
export async function fetchAll(testbed: Testbed, node: string, load: Load & { count: number }): Promise<Fetched[]> {
  const all: Fetched[] = [];
  await startLoad(testbed, node, load, (fetched) => all.push(fetched)).done;
  return all;
}

/**
 * Tests the testbed's web server and its downloads over loopback: they check what they claim to
 * check.
 */

import { strict as assert } from 'node:assert';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { needs } from '../../support/require.js';
import { Program } from '../program.js';
import { bodyOf, bodyPath } from './body.js';
import type { Fetched, Load } from './load.js';

const script = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

describe('testbed/http', () => {
  let folder: string;
  const servers: Server[] = [];

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'ct-http-'));
  });

  after(() => {
    rmSync(folder, { recursive: true, force: true });
  });

  afterEach(() => {
    for (const server of servers.splice(0)) server.close();
  });

  /** Listens on a free port and answers every request with the result of `answer`. */
  async function serve(answer: (path: string) => Buffer | null): Promise<string> {
    const server = createServer((request, response) => response.end(answer(request.url ?? '') ?? ''));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  async function load(options: Partial<Load> & Pick<Load, 'origins'>): Promise<Fetched[]> {
    const whole: Load = { sources: ['127.0.0.1'], bytes: 1000, concurrency: 4, count: 8, ...options };
    const argv = [process.execPath, script('load.js'), JSON.stringify(whole)];
    const program = new Program('load', argv, join(folder, 'load.log'));
    if (options.count === undefined) assert.equal((await program.exited).code, 0, program.output);
    else await program.exited;
    return program.output
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Fetched);
  }

  for (const client of ['node', 'curl'] as const) {
    it(`downloads with ${client} and finds the right bytes right, others wrong`, async function () {
      if (client === 'curl') needs(this, 'tool:curl');
      const right = await load({ client, origins: [await serve(bodyOf)] });
      assert.equal(right.length, 8);
      assert.ok(right.every((fetched) => fetched.ok && fetched.bytes === 1000 && fetched.connect_ms >= 0));
      const origin = await serve((path) => (path === bodyPath(1000, 3) ? Buffer.alloc(1000) : bodyOf(path)));
      const wrong = (await load({ client, origins: [origin] })).filter((fetched) => !fetched.ok);
      assert.deepEqual(
        wrong.map((fetched) => fetched.error),
        ['wrong bytes: 1000 came, 1000 were asked for'],
      );
    });

    it(`says why ${client} could not download`, async function () {
      if (client === 'curl') needs(this, 'tool:curl');
      const origin = await serve(bodyOf);
      servers.pop()?.close();
      const [fetched] = await load({ client, origins: [origin], count: 1 });
      assert.equal(fetched.ok, false);
      assert.match(fetched.error ?? '', /curl: code 7|ECONNREFUSED/);
    });
  }

  it('serves a body of its own for every path', async () => {
    const program = new Program('server', [process.execPath, script('server.js'), '0'], join(folder, 'server.log'));
    await program.waitFor(/ready/);
    await program.stop();
    assert.equal(bodyOf('/100/7')?.length, 100);
    assert.notDeepEqual(bodyOf('/100/7'), bodyOf('/100/8'));
    assert.equal(bodyOf('/100'), null);
    assert.equal(bodyOf('/99999999999/1'), null);
  });
});

/** Middleboxes of one's own before the NAT, in real instances, met by real programs. */

import { strict as assert } from 'node:assert';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { tutorialFile } from '../docs/tutorial.js';
import { needs } from '../support/require.js';
import { PROJECT } from '../testbed/compile.js';
import { startServer } from '../testbed/http/fetch.js';
import { findPing, ping } from '../testbed/ping.js';
import type { TwoSites } from '../testbed/two-sites.js';
import { SERVER } from '../testbed/two-sites.js';
import { withTwoSites } from './support.js';

/** Another address of the server's, that the client reaches through site b. */
const THROUGH_B = '198.51.100.2';
const NOBODY = '198.51.100.77';
/** What curl exits with when the connection was refused. */
const REFUSED = 7;
const WAIT_MS_MAX = 20_000;

/**
 * Answers pings to one address, resets connections to one port and tells that another cannot be
 * reached.
 */
const ANSWERER = `import { defineMiddlebox, destinationPort, option, parseIpv4, Protocol, rawPort, Unreachable } from 'constellation';
export default defineMiddlebox({
  name: 'answerer',
  help: 'Answers.',
  options: { inside: option.port('where it answers') },
  counters: { answered: 'packets answered' },
  state: () => ({}),
  open: ({ options: { inside }, batch, counters, replies }) => () => {
    const nobody = parseIpv4('${NOBODY}');
    for (let i = 0; i < batch.count; i++) {
      if (batch.skips(i) || batch.port[i] !== inside || batch.version[i] !== 4) continue;
      const to = destinationPort(batch.ports[i]);
      const answered =
        (batch.destination[i] === nobody && replies.echo(i)) ||
        (to === rawPort(81) && replies.reset(i)) ||
        (to === rawPort(82) && batch.protocol[i] === Protocol.UDP && replies.unreachable(i, Unreachable.PORT));
      if (answered) batch.count1(counters.answered);
    }
  },
});
`;

describe("end to end: a user's own middlebox", function () {
  this.timeout(120_000);
  let folder = '';

  before(function () {
    needs(this, 'af_xdp', 'tool:curl', 'tool:bash');
    folder = mkdtempSync(join(tmpdir(), 'constellation-own-'));
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(PROJECT, join(folder, 'node_modules/constellation'));
    writeFileSync(join(folder, 'guard.mjs'), tutorialFile('guard.mjs'));
    writeFileSync(join(folder, 'answerer.mjs'), ANSWERER);
  });
  after(() => folder !== '' && rmSync(folder, { recursive: true }));

  const inClient = (sites: TwoSites, ...argv: string[]) => sites.testbed.run('client', argv, true);
  const curl = (sites: TwoSites, url: string) =>
    inClient(sites, 'curl', '-s', '-o', '/dev/null', '--max-time', '10', url).then(({ code }) => code);

  it('answers pings, refuses connections and tells what is unreachable', async () => {
    const middleboxes = [{ [join(folder, 'answerer.mjs')]: { inside: 'inside' } }];
    await withTwoSites({ middleboxes, routing: 'by-a' }, async (sites) => {
      await startServer(sites.testbed, 'server');
      if (findPing() !== null) assert.equal((await ping(sites.testbed, 'client', NOBODY, 3)).received, 3);
      assert.equal(await curl(sites, `http://${SERVER}:81/`), REFUSED);
      const udp = `
        const socket = require('node:dgram').createSocket('udp4');
        socket.on('error', ({ code }) => { console.log(code); socket.close(); });
        socket.connect(82, '${SERVER}', () => socket.send('?'));
        setTimeout(() => process.exit(1), ${WAIT_MS_MAX}).unref();`;
      assert.match((await inClient(sites, process.execPath, '-e', udp)).stdout, /ECONNREFUSED/);
      assert.equal(await curl(sites, `http://${SERVER}/1000`), 0, 'all else passes, through the NAT');
      const counters = await sites.a.counters();
      assert.equal(counters['answerer_answered'], findPing() === null ? 2 : 5);
    });
  });

  it('guards as in the tutorial: knocks through one site open the port at the other', async () => {
    const middleboxes = [{ [join(folder, 'guard.mjs')]: { outside: 'inside', guarded: 80 } }];
    await withTwoSites({ middleboxes, wan: { delay_ms: 5 } }, async (sites) => {
      await startServer(sites.testbed, 'server');
      await inClient(sites, 'ip', 'route', 'add', `${THROUGH_B}/32`, 'via', '10.0.2.1', 'src', '10.1.0.1');
      const url = `http://${THROUGH_B}/1000`;
      assert.equal(await curl(sites, url), REFUSED, 'nobody has knocked');
      for (const port of [7003, 7001, 7002])
        await inClient(sites, 'bash', '-c', `echo knock > /dev/udp/${SERVER}/${port}`);
      const end = Date.now() + WAIT_MS_MAX;
      while ((await curl(sites, url)) === REFUSED) assert.ok(Date.now() < end, 'the port was not opened');
      const [atA, atB] = [await sites.a.counters(), await sites.b.counters()];
      assert.deepEqual([atA['guard_opened'], atA['guard_knocked'], atA['guard_refused']], [1, 3, 0]);
      assert.ok(atB['guard_refused'] > 0 && atB['guard_opened'] === 0);
      assert.ok(atB['nat_outbound'] > 0, 'the connection went through site b');
      assert.equal(await curl(sites, url), 0);
    });
  });
});

/**
 * What three sites under downloads survive, as docs/survival.md says it: every test begins
 * downloads, lets something happen, and sees that each brought the right bytes. One network for all
 * tests of a kind.
 */

import { strict as assert } from 'node:assert';
import { rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { needs } from '../support/require.js';
import { startServer } from '../testbed/http/fetch.js';
import { converged, eventually } from '../testbed/instance.js';
import { ManySites, type SiteName } from '../testbed/many-sites.js';
import { DAEMON, type Site } from '../testbed/site.js';
import { whileDownloading } from './restarts.js';

const ALL: readonly SiteName[] = ['a', 'b', 'c'];
const DOWNLOADS = { count: 30, bytes: 250_000, rate: 12_000 };
/** However slow the machine is, members that start together hear each other before they begin. */
const TOGETHER = { replication: { join_wait_ms: 30_000 } };
const WAIT_MS_MAX = 90_000;

/** The wall clock of a daemon is ahead by what a file beside its configuration says. */
const CLOCK = `
import { readFileSync } from 'node:fs';
process.env.CONSTELLATION_TEST_CLOCK ??= process.argv.at(-1).replace(/yaml$/, 'clock');
const now = Date.now;
let ahead = 0;
let readAt = -Infinity;
Date.now = () => {
  if (performance.now() - readAt > 100) {
    readAt = performance.now();
    try { ahead = Number(readFileSync(process.env.CONSTELLATION_TEST_CLOCK, 'utf8')); } catch {}
  }
  return now() + ahead;
};`;

/** Gives a command that has to succeed. */
async function told(site: Site, ...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await site.client(...words);
  assert.equal(code, 0, `${site.name}: ${words.join(' ')}: ${stderr}`);
  return stdout;
}

async function stateIs(site: Site, state: string, reason = /^/): Promise<void> {
  await eventually(
    `${site.name} to be ${state}`,
    async () => {
      const status = await site.status();
      return status.state === state && reason.test(status.state_reason) ? true : null;
    },
    WAIT_MS_MAX,
  );
}

/** Everything of each member is at every other. */
async function settled(sites: ManySites): Promise<void> {
  for (const name of ALL)
    await eventually(
      `${name} to have told all`,
      async () =>
        (await sites.site(name).objects()).every((object) => object.unacknowledged_records === 0) ? true : null,
      WAIT_MS_MAX,
    );
}

const others = (name: SiteName): SiteName[] => ALL.filter((other) => other !== name);

describe('end to end: downloads through three sites survive', function () {
  this.timeout(300_000);
  let sites: ManySites;

  before(async function () {
    needs(this, 'af_xdp', 'tool:curl');
    const daemon = [process.execPath, '--import', `data:text/javascript,${encodeURIComponent(CLOCK)}`, DAEMON];
    sites = await ManySites.build({ sites: ALL, savesState: true, daemon, ...TOGETHER });
    await startServer(sites.testbed, 'server');
    await sites.start(...ALL);
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(sites?.testbed.report());
  });

  after(() => sites?.down());

  /** Downloads that last while something happens. */
  const during = async (happens: () => Promise<void>): Promise<void> => {
    await whileDownloading(sites, ALL, DOWNLOADS, happens);
    await converged(
      ALL.map((name) => sites.site(name)),
      WAIT_MS_MAX,
    );
  };

  for (const thread of ['worker-0', 'send', 'receive'])
    it(`the death of thread ${thread} of each`, () =>
      during(async () => {
        for (const name of ALL) {
          const site = sites.site(name);
          const of = async () => (await site.threads()).find((row) => row.name === thread);
          const before = (await of())?.restarts ?? 0;
          await told(site, 'restart', thread);
          await eventually(`${thread} to run again`, async () => {
            const row = await of();
            return row !== undefined && row.restarts > before && row.state === 'ready' ? true : null;
          });
          await stateIs(site, 'ready');
        }
      }));

  it('a clock that is a minute ahead, and is put back', () =>
    during(async () => {
      const b = sites.site('b');
      const clock = b.configFile.replace(/yaml$/, 'clock');
      writeFileSync(clock, '60000');
      await stateIs(b, 'degraded', /^the clock differs from that of a, c by more than/);
      assert.equal((await sites.site('a').status()).state, 'ready', 'the majority is right');
      rmSync(clock);
      writeFileSync(clock, '0');
      await stateIs(b, 'ready');
    }));

  it('kill -9 of a site, whose routes move a moment later', () =>
    during(async () => {
      await settled(sites);
      const { program } = sites.site('c');
      program.kill('SIGKILL');
      await program.exited;
      await sleep(300);
      await sites.steer(others('c'));
      await sites.start('c');
      await sites.steer(ALL);
    }));
});

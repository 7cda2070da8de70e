/**
 * What three sites under downloads survive, as docs/survival.md says it: every test begins
 * downloads, lets something happen, and sees that each brought the right bytes. One network for all
 * tests of a kind.
 */

import { strict as assert } from 'node:assert';
import { rmSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { eventually } from '../testbed/instance.js';
import type { ManySites } from '../testbed/many-sites.js';
import { DAEMON, type Site } from '../testbed/site.js';
import { ALL, others, ThreeSites, WAIT_MS_MAX } from './three-sites.js';

const DOWNLOADS = { count: 30, bytes: 250_000, rate: 12_000 };

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

describe('end to end: downloads through three sites survive', function () {
  this.timeout(300_000);
  const daemon = [process.execPath, '--import', `data:text/javascript,${encodeURIComponent(CLOCK)}`, DAEMON];
  const three = ThreeSites.ofSuite(DOWNLOADS, { daemon });

  for (const thread of ['worker-0', 'send', 'receive'])
    it(`the death of thread ${thread} of each`, () =>
      three.during(async () => {
        for (const name of ALL) {
          const site = three.sites.site(name);
          const of = async () => (await site.threads()).find((row) => row.name === thread);
          const before = (await of())?.restarts ?? 0;
          await site.clientOutput('restart', thread);
          await eventually(`${thread} to run again`, async () => {
            const row = await of();
            return row !== undefined && row.restarts > before && row.state === 'ready' ? true : null;
          });
          await stateIs(site, 'ready');
        }
      }));

  it('a clock that is a minute ahead, and is put back', () =>
    three.during(async () => {
      const b = three.sites.site('b');
      const clock = b.configFile.replace(/yaml$/, 'clock');
      writeFileSync(clock, '60000');
      await stateIs(b, 'degraded', /^the clock differs from that of a, c by more than/);
      assert.equal((await three.sites.site('a').status()).state, 'ready', 'the majority is right');
      rmSync(clock);
      writeFileSync(clock, '0');
      await stateIs(b, 'ready');
    }));

  it('kill -9 of a site, whose routes move a moment later', () =>
    three.during(async () => {
      await settled(three.sites);
      const { program } = three.sites.site('c');
      program.kill('SIGKILL');
      await program.exited;
      await sleep(300);
      await three.sites.steer(others('c'));
      await three.sites.start('c');
      await three.sites.steer(ALL);
    }));
});

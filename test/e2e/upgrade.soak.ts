/**
 * Real downloads through two sites that are upgraded one after another: to a build that has only
 * another id, to one with an option more, and to one with a state object more, which a running
 * cluster refuses.
 */

import { strict as assert } from 'node:assert';
import { join } from 'node:path';
import { BUILD_ID } from '../../workers/engine/build-id.js';
import { makeBuild, type Patch } from '../support/builds.js';
import { needs } from '../support/require.js';
import { PROJECT } from '../testbed/compile.js';
import { fetchAll } from '../testbed/http/fetch.js';
import { converged, eventually } from '../testbed/instance.js';
import { clientsOf, type ManySites, type SiteName } from '../testbed/many-sites.js';
import { whileDownloading, withStarted } from './restarts.js';
import { assertAllFetched, ORIGIN } from './support.js';

const ALL: readonly SiteName[] = ['a', 'b'];
const DOWNLOADS = { count: 30, rate: 14_000 };
/** Only what never happens takes so long: the machine may be busy. */
const WAIT_MS_MAX = 90_000;

const OPTION: Patch = {
  file: 'workers/middleboxes/nat/declaration.js',
  find: 'filtering: option.choice(',
  replace: `later: option.count('of a later build', 1, { change: HOT }),\n    filtering: option.choice(`,
};
const STATE_OBJECT: readonly Patch[] = [
  { file: 'workers/middleboxes/nat/index.js', find: 'import { ', replace: 'import { lastWriter, ' },
  {
    file: 'workers/middleboxes/nat/index.js',
    find: 'return { bindings',
    replace: 'return { later: lastWriter({ length: 8, valueWords: 1 }), bindings',
  },
];

/** Whether an entry of `other_builds` names this site and this build. */
const isOf = (text: string | undefined, name: string, build: string): boolean =>
  text?.startsWith(`${name}: `) === true && text.endsWith(`(build ${build})`);

describe('end to end: two sites that are upgraded one after another', function () {
  this.timeout(600_000);

  before(function () {
    needs(this, 'af_xdp', 'tool:curl');
  });

  const withTwo = (test: (sites: ManySites) => Promise<void>): Promise<void> =>
    withStarted({ sites: ALL, nat: { flows: 4096 } }, ALL, test);

  function build(sites: ManySites, id: string, patches: readonly Patch[] = []): string {
    const folder = join(sites.testbed.folder, `build-${id}`);
    makeBuild(folder, id, patches);
    return folder;
  }

  /**
   * Restarts a site from the build in this folder while the other one carries its traffic, as an
   * operator does.
   */
  async function upgrade(sites: ManySites, name: SiteName, folder: string, change?: (text: string) => string) {
    const site = sites.site(name);
    site.install(folder);
    if (change) site.edit(change);
    await sites.steer(ALL.filter((other) => other !== name));
    assert.deepEqual(await site.stop(), { code: 0, signal: null });
    await site.start();
    await sites.steer(ALL);
  }

  /** Each site knows which build it runs, and which the other. */
  async function run(sites: ManySites, builds: Readonly<Record<'a' | 'b', string>>): Promise<void> {
    for (const [name, other] of [ALL, ALL.toReversed()] as ['a' | 'b', 'a' | 'b'][]) {
      const site = sites.site(name);
      await eventually(
        `${name} to name the builds ${JSON.stringify(builds)}`,
        async () => {
          const { build, other_builds, state, state_reason } = await site.status();
          // Refusals of a moment ago are still named.
          if (state !== 'ready' || /differs|refused/.test(state_reason)) return null;
          assert.equal(build, builds[name]);
          const isOther = builds[other] !== builds[name];
          if (other_builds.length !== (isOther ? 1 : 0)) return null;
          if (isOther && !isOf(other_builds[0], other, builds[other])) return null;
          const peer = (await site.peers()).find((row) => row.name === other);
          return peer?.build === builds[other] ? true : null;
        },
        WAIT_MS_MAX,
      );
    }
  }

  /** New connections pass both sites. */
  async function fetchNew({ testbed }: ManySites): Promise<void> {
    const sources = ALL.flatMap((name) => clientsOf(name));
    const load = { origins: [ORIGIN], sources, count: 40, concurrency: 20, bytes: 20_000 };
    assertAllFetched(await fetchAll(testbed, 'client', load), 40);
  }

  it('break no download, whether the later build has another id alone, or an option more', () =>
    withTwo(async (sites) => {
      const same = build(sites, 'same');
      const more = build(sites, 'more', [OPTION]);
      const setOption = (text: string): string => text.replace(/( +)- nat:\n/, '$1- nat:\n$1    later: 7\n');
      await whileDownloading(sites, ALL, { ...DOWNLOADS, bytes: 2_000_000 }, async () => {
        await run(sites, { a: BUILD_ID, b: BUILD_ID });
        await upgrade(sites, 'b', same);
        await run(sites, { a: BUILD_ID, b: 'same' });
        await fetchNew(sites);
        await upgrade(sites, 'a', same);
        await run(sites, { a: 'same', b: 'same' });
        await upgrade(sites, 'b', more, setOption);
        await run(sites, { a: 'same', b: 'more' });
        await fetchNew(sites);
        await upgrade(sites, 'a', more, setOption);
        await run(sites, { a: 'more', b: 'more' });
      });
      await fetchNew(sites);
      await converged(
        ALL.map((name) => sites.site(name)),
        WAIT_MS_MAX,
      );
    }));

  it('break no download, when the later build has another state and is taken back; a stop of all installs it', () =>
    withTwo(async (sites) => {
      const [a, b] = ALL.map((name) => sites.site(name));
      const later = build(sites, 'later', [OPTION, ...STATE_OBJECT]);
      await whileDownloading(sites, ALL, { ...DOWNLOADS, bytes: 1_400_000 }, async () => {
        await sites.steer(['a']);
        await b.stop();
        b.install(later);
        const refused = b.launch();
        await eventually(
          'b to say what a lacks',
          async () => {
            const { state, state_reason, other_builds } = await b.status().catch(() => ({}) as never);
            if (!/state nat\.later: .* here, nothing there/.test(state_reason ?? '')) return null;
            return state === 'waiting' && isOf(other_builds[0], 'a', BUILD_ID) ? true : null;
          },
          WAIT_MS_MAX,
        );
        await eventually(
          'a to say what b has',
          async () => {
            const { state_reason, other_builds } = await a.status();
            if (!/state nat\.later: nothing here/.test(state_reason)) return null;
            return isOf(other_builds[0], 'b', 'later') ? true : null;
          },
          WAIT_MS_MAX,
        );
        await fetchNew(sites);
        await refused.stop('SIGTERM');
        await upgrade(sites, 'b', PROJECT);
        await run(sites, { a: BUILD_ID, b: BUILD_ID });
      });
      for (const site of [a, b]) site.install(later);
      await Promise.all([a, b].map((site) => site.stop()));
      await sites.start(...ALL);
      await run(sites, { a: 'later', b: 'later' });
      await fetchNew(sites);
      assert.ok((await a.objects()).some(({ name }) => name === 'nat.later'));
      await converged([a, b], WAIT_MS_MAX);
    }));
});

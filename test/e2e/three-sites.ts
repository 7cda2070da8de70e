/** Three sites that the tests of a suite share, and downloads that last while something happens. */

import { needs } from '../support/require.js';
import { startServer } from '../testbed/http/fetch.js';
import { converged } from '../testbed/instance.js';
import { ManySites, type ManySitesOptions, type SiteName } from '../testbed/many-sites.js';
import { type Downloads, whileDownloading } from './restarts.js';

export const ALL: readonly SiteName[] = ['a', 'b', 'c'];
/** However slow the machine is, members that start together hear each other before they begin. */
export const TOGETHER = { replication: { join_wait_ms: 30_000 } };
/** The longest wait for what takes some seconds on an idle machine. */
export const WAIT_MS_MAX = 90_000;

export const others = (name: SiteName): SiteName[] => ALL.filter((other) => other !== name);

export class ThreeSites {
  private readonly downloads: Downloads;
  private network: ManySites | null = null;

  private constructor(downloads: Downloads) {
    this.downloads = downloads;
  }

  /** Call it in a `describe`: the sites start before its tests, and end after them. */
  static ofSuite(downloads: Downloads, options: Partial<ManySitesOptions> = {}): ThreeSites {
    const three = new ThreeSites(downloads);
    before(async function () {
      needs(this, 'af_xdp', 'tool:curl');
      const sites = await ManySites.build({ sites: ALL, savesState: true, ...TOGETHER, ...options });
      three.network = sites;
      await startServer(sites.testbed, 'server');
      await sites.start(...ALL);
    });
    afterEach(function () {
      if (this.currentTest?.state === 'failed') console.log(three.network?.testbed.report());
    });
    after(() => three.network?.down());
    return three;
  }

  get sites(): ManySites {
    if (this.network === null) throw new Error('the sites have not started');
    return this.network;
  }

  /**
   * Runs downloads while something happens. Each has to bring the right bytes, and the sites have
   * to converge afterwards.
   */
  async during(happens: () => Promise<void>): Promise<void> {
    await whileDownloading(this.sites, ALL, this.downloads, happens);
    await converged(
      ALL.map((name) => this.sites.site(name)),
      WAIT_MS_MAX,
    );
  }
}

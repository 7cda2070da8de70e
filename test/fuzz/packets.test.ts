import { strict as assert } from 'node:assert';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { type Batch, DROPPED, defineMiddlebox } from '../../workers/api/api.js';
import { scaled } from '../support/scale.js';
import { fuzzedChains, fuzzPackets } from './packets.js';

const PACKETS = scaled(6_000, 15_000);
/**
 * Memory that is the same at the end may still be some pages more; what grew with the packets would
 * be far more.
 */
const GROWTH_MIB_MAX = 8;

describe('the packet path', () => {
  before(() => {
    setFlagsFromString('--expose-gc');
    (globalThis as { gc?: () => void }).gc = runInNewContext('gc') as () => void;
  });

  for (const chain of fuzzedChains())
    it(`loses count of no packet, whatever is wrong with it: ${chain.name}`, function () {
      this.timeout(30_000);
      const report = fuzzPackets(chain, PACKETS, 11);
      assert.deepEqual(report.problems, []);
      assert.equal(report.packets, PACKETS);
      assert.ok(report.out > PACKETS / 50, `${report.out} came out: enough are right to be worth it`);
      const growth = report.heapMiB.end - report.heapMiB.start;
      assert.ok(growth < GROWTH_MIB_MAX, `the heap grew by ${growth} MiB`);
    });

  for (const [what, fault, problem] of [
    [
      'loses a packet',
      (batch: Batch, i: number) => batch.egress.fill(DROPPED, i, i + 1),
      /1 are neither out, dropped nor held/,
    ],
    ['damages a header', (batch: Batch, i: number) => void batch.memory.u8[batch.l3[i] + 1]++, /wrong header checksum/],
    ['throws', () => assert.fail('planted'), /stopped by a batch .* planted/s],
  ] as const)
    it(`would be seen to when a middlebox ${what}, once`, () => {
      let seen = 0;
      const planted = defineMiddlebox({
        name: 'planted',
        help: 'Does wrong.',
        options: {},
        counters: {},
        state: () => ({}),
        open:
          ({ batch }) =>
          () => {
            for (let i = 0; i < batch.count; i++)
              if (!batch.skips(i) && batch.version[i] === 4 && ++seen === 1000) fault(batch, i);
          },
      });
      const links = [{ middlebox: planted as never, options: {} }];
      const { problems } = fuzzPackets({ name: 'planted', mode: 'wire', links }, PACKETS, 11);
      assert.match(problems[0] ?? 'nothing was found', problem);
    });
});

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { frameLayout, mtuMax } from '../../../workers/drivers/frame-size.js';

const yes = (): boolean => true;
const no = (): boolean => false;
const port = (mtu: number): { name: string; mtu: number } => ({ name: `eth${mtu}`, mtu });

describe('the layout of packet memory', () => {
  it('holds the frames of every port, in the smallest chunks', () => {
    const mtus = fc.array(fc.integer({ min: 68, max: 16_096 }), { minLength: 1, maxLength: 4 });
    fc.assert(
      fc.property(mtus, (all) => {
        const layout = frameLayout(all.map(port), yes);
        assert.ok(Math.max(...all) <= mtuMax(layout));
        const smaller = { chunkBytes: 2048, multiBuffer: false };
        assert.equal(layout.chunkBytes === 2048, Math.max(...all) <= mtuMax(smaller));
        assert.equal(layout.multiBuffer, Math.max(...all) > mtuMax({ chunkBytes: 4096, multiBuffer: false }));
      }),
    );
  });

  it('does not need frames of several chunks below an MTU of 3808, nor ask for them', () => {
    const never = (): boolean => assert.fail('asked');
    assert.deepEqual(frameLayout([port(1500), port(1760)], never), { chunkBytes: 2048, multiBuffer: false });
    assert.deepEqual(frameLayout([port(1500), port(1761)], never), { chunkBytes: 4096, multiBuffer: false });
    assert.deepEqual(frameLayout([port(3808), port(68)], never), { chunkBytes: 4096, multiBuffer: false });
    assert.deepEqual(frameLayout([port(3809)], yes), { chunkBytes: 4096, multiBuffer: true });
  });

  it('is refused where there is none, with the port, its MTU and what to change', () => {
    assert.throws(() => frameLayout([port(1500), port(9000)], no), /eth9000 has MTU 9000.* mtu 3808.*Linux 6\.6/);
    assert.throws(() => frameLayout([port(16_097)], yes), /eth16097 has MTU 16097.* mtu 16096/);
  });
});

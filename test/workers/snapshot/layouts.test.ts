/** Snapshots between instances whose objects mean the same and lie otherwise in memory. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { encodeCbor } from '../../../workers/base/cbor.js';
import { shapeOf } from '../../../workers/snapshot/fork.js';
import {
  decodeStart,
  encodeHead,
  headLength,
  LENGTH_BYTES,
  type SnapshotStart,
} from '../../../workers/snapshot/head.js';
import { Landing } from '../../../workers/snapshot/landing.js';
import { loadBeside, mergeSnapshot } from '../../../workers/snapshot/load.js';
import { scaled } from '../../support/scale.js';
import { NOW, Still } from './still.js';

/** The donor's snapshot as the joiner reads it: its head, and where its bytes went. */
async function taken(donor: Still, joiner: Still, isBeside: boolean) {
  const { instance } = joiner.site;
  const landing = new Landing(instance, isBeside);
  const memory = new SharedArrayBuffer(donor.site.instance.arena.bytes);
  const head = await donor.snapshotInto(memory);
  const start = startOf(joiner, encodeHead(shapeOf(donor.site.instance), head));
  landing.place(start).set(new Uint8Array(memory));
  return { head, landing, start };
}

function startOf(joiner: Still, bytes: Uint8Array): SnapshotStart {
  const end = LENGTH_BYTES + headLength(bytes.subarray(0, LENGTH_BYTES));
  return decodeStart(bytes.subarray(LENGTH_BYTES, end), shapeOf(joiner.site.instance));
}

describe('a snapshot of another layout', () => {
  it('is loaded whole: counts and their vectors copied, entries taken over one by one', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 64, max: 3000 }),
        fc.integer({ min: 64, max: 3000 }),
        fc.uniqueArray(fc.integer({ min: 1, max: 1000 }), { maxLength: 50 }),
        async (large, small, elements) => {
          const donor = await Still.create(1, large);
          const joiner = await Still.create(2, small);
          assert.deepEqual(donor.site.instance.arena.meaningHash, joiner.site.instance.arena.meaningHash);
          for (const element of elements) donor.add(element);
          donor.count(3, 7);
          donor.tell();
          const { head, landing } = await taken(donor, joiner, false);
          const { instance } = joiner.site;
          if (landing.beside !== null) {
            const losses = await loadBeside(instance, landing.beside, () => instance.openObjects(null), head, NOW);
            assert.deepEqual(losses, []);
          } else assert.deepEqual(instance.arena.layoutHash, donor.site.instance.arena.layoutHash);
          const after = new Still(joiner.site);
          for (const element of elements) assert.ok(after.has(element), `element ${element}`);
          assert.deepEqual([after.totals.value(3), after.increments.value(3)], [7, 7]);
          assert.deepEqual(
            instance.openObjects(null).map((object) => object.digest(NOW)),
            donor.site.objects.map((object) => object.digest(NOW)),
          );
        },
      ),
      { numRuns: scaled(3, 20) },
    );
  });

  it('is merged with what is here', async () => {
    const [ours, theirs] = [await Still.create(1, 128), await Still.create(2, 4096)];
    ours.add(1);
    for (let element = 2; element < 60; element++) theirs.add(element);
    theirs.count(1, 100);
    const { head, landing } = await taken(theirs, ours, true);
    const { losses } = await mergeSnapshot(ours.site.instance, landing.beside ?? assert.fail(), head, NOW);
    assert.deepEqual(losses, []);
    for (let element = 1; element < 60; element++) assert.ok(ours.has(element), `element ${element}`);
    assert.equal(ours.totals.value(1), 100);
  });

  it('loses what finds no room, counted by object', async () => {
    const [donor, joiner] = [await Still.create(1, 4096), await Still.create(2, 64)];
    const ADDED = 2000;
    for (let element = 1; element <= ADDED; element++) donor.add(element);
    donor.tell();
    const { head, landing } = await taken(donor, joiner, false);
    const { instance } = joiner.site;
    const losses = await loadBeside(
      instance,
      landing.beside ?? assert.fail(),
      () => instance.openObjects(null),
      head,
      NOW,
    );
    const [{ object, entries }] = losses;
    const after = new Still(joiner.site);
    let held = 0;
    for (let element = 1; element <= ADDED; element++) if (after.has(element)) held++;
    assert.equal(object, 'busy.set');
    assert.equal(held + entries, ADDED);
  });

  it('is refused, before memory is made for it, if its layout does not follow from its shapes', async () => {
    const [donor, joiner] = [await Still.create(1, 4096), await Still.create(2, 64)];
    const { head } = await taken(donor, joiner, false);
    const shape = shapeOf(donor.site.instance);
    const [totals, increments] = shape.shapes;
    for (const [wrong, problem] of [
      [{ arenaBytes: 2 ** 40 }, /lays its state out in another way/],
      [{ layout: [1, 2] as const }, /lays its state out in another way/],
      [{ shapes: [totals, increments, { capacity: 128 }] }, /lays its state out in another way/],
      [{ shapes: [totals, increments, { capacity: -1 }] }, /busy\.set cannot be read in the donor/],
      [{ shapes: [{ capacity: 1 }, increments, shape.shapes[2]] }, /busy\.totals has another shape at the donor/],
    ] as const) {
      const start = startOf(joiner, encodeHead({ ...shape, ...wrong }, head));
      const landing = new Landing(joiner.site.instance, false);
      assert.throws(() => landing.place(start), problem);
      assert.equal(landing.beside, null);
    }
    const { meaningHash } = (await Still.create(2, 64, 65)).site.instance.arena;
    assert.notDeepEqual(meaningHash, joiner.site.instance.arena.meaningHash, 'cells are part of the meaning');
    assert.throws(() => decodeStart(encodeCbor({ shapes: 1 }), shape), Error);
  });
});

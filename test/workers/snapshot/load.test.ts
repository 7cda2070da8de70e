import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { AckBoard } from '../../../shm/ack-board.js';
import { Arena, clearArena, layoutArena } from '../../../shm/arena.js';
import { INCARNATIONS_FLOATS, VECTOR_DETACHED, VectorRecord } from '../../../shm/board-records.js';
import { encodeCbor } from '../../../workers/base/cbor.js';
import { writerId } from '../../../workers/engine/instance.js';
import { shapeOf } from '../../../workers/snapshot/fork.js';
import {
  decodeHead,
  decodeStart,
  encodeHead,
  headLength,
  LENGTH_BYTES,
  type SnapshotShape,
} from '../../../workers/snapshot/head.js';
import { arenaBeside, loadSnapshot, mergeSnapshot } from '../../../workers/snapshot/load.js';
import { decodeVectors, encodeVectors, type OriginVector, vectorBytesMax } from '../../../workers/snapshot/vectors.js';
import { BusySite } from './busy-site.js';
import { MEMBERS, NOW, Still } from './still.js';

describe('a snapshot that has come', () => {
  it('is loaded in place, with the hash secret and what others know of our former life', async () => {
    const former = await Still.create(2);
    const donor = await Still.create(1);
    former.count(3, 5);
    donor.count(3, 7);
    donor.count(4, 1);
    donor.add(77);
    donor.tell();
    // The donor heard the former life of the newcomer.
    const heard = donor.site.instance.openObjects({
      id: writerId(2),
      journal: donor.site.instance.journal(2),
      log: null,
    });
    for (const { object, words } of former.tell())
      if (object < 2) heard[object].apply(1, Int32Array.from(words), 0, words.length, 1, NOW);

    const { site } = await Still.create(2);
    const { instance, objects } = site;
    const head = await donor.snapshotInto(instance.buffers.arena);
    loadSnapshot(instance, objects, head);
    const newcomer = new Still(site);
    assert.deepEqual(
      instance.openObjects(null).map((object) => object.digest(NOW)),
      donor.site.objects.map((object) => object.digest(NOW)),
    );
    assert.ok(newcomer.has(77), 'found by the donor’s secret');
    assert.equal(newcomer.totals.value(3), 12);
    assert.equal(newcomer.increments.value(3), 12);
    assert.equal(objects[0].errorBound?.(0), 0, 'the others know what the former life counted');
    newcomer.count(3, 1);
    assert.deepEqual(newcomer.tell(), [
      { object: 0, words: [3, 6, 0] },
      { object: 1, words: [3, 1, 0] },
    ]);
  });

  it('is merged with what is here, although it hashes by another secret', async () => {
    const [ours, theirs] = [await Still.create(1), await Still.create(2)];
    ours.count(1, 10);
    ours.add(1);
    theirs.count(1, 100);
    theirs.count(2, 5);
    for (let element = 2; element < 500; element++) theirs.add(element);
    const { instance } = ours.site;
    const beside = arenaBeside(instance);
    const head = await theirs.snapshotInto(beside.memory);
    for (const changes of [true, false]) {
      const { changed, problems } = await mergeSnapshot(instance, beside, head, NOW);
      assert.equal(changed > 0, changes, 'once more changes nothing');
      assert.deepEqual(
        problems.map(({ object }) => object),
        ['busy.increments'],
      );
      assert.match(problems[0].problem, /takes units in order/);
    }
    assert.equal(ours.totals.value(1), 110);
    assert.equal(ours.totals.value(2), 5);
    assert.equal(ours.increments.value(1), 10);
    for (let element = 1; element < 500; element++) assert.ok(ours.has(element), `element ${element}`);
  });

  it('raises no vector when it is merged, but those of an empty object that counts in order', async () => {
    const THROUGH = 7;
    for (const [counted, flags] of [
      [true, 0],
      [false, VECTOR_DETACHED],
      [false, 0],
    ] as const) {
      const [ours, theirs] = [await Still.create(1), await Still.create(2)];
      if (counted) ours.count(1, 10);
      theirs.count(1, 100);
      const { instance } = ours.site;
      const beside = arenaBeside(instance);
      const head = await theirs.snapshotInto(beside.memory);
      const incarnation = 9;
      const present = head.vectors.present.map((origins) =>
        origins.map((origin, slot) => (slot === 1 ? { incarnation, contiguous: THROUGH, ranges: [] } : origin)),
      );
      const board = new AckBoard(instance.buffers.ackBoard);
      const heard = new VectorRecord();
      heard.incarnation = incarnation;
      heard.flags = flags;
      for (const { id } of ours.site.objects) board.writeReception(id, 1, heard);
      const { problems } = await mergeSnapshot(
        instance,
        beside,
        { ...head, vectors: { ...head.vectors, present } },
        NOW,
      );
      const through = ours.site.objects.map(({ id }) => {
        board.readReception(id, 1, heard);
        return heard.contiguous;
      });
      const isRaised = !counted && flags === 0;
      assert.deepEqual(through, [0, isRaised ? THROUGH : 0, 0], 'totals, increments, set');
      assert.equal(problems.length, isRaised ? 0 : 1);
      if (flags !== 0) assert.match(problems[0].problem, /still sends this instance a backlog/);
    }
  });

  it('leaves nothing behind when it is thrown away', async () => {
    const site = await Still.create(1);
    const { instance } = site.site;
    const layout = layoutArena(instance.declaration.objects, instance.plan.replication.slots);
    const before = instance.openObjects(null).map((object) => object.digest(NOW));
    new Uint8Array(instance.buffers.arena).fill(0xa5);
    clearArena(instance.buffers.arena, layout);
    new Arena(instance.buffers.arena, instance.declaration.objects, instance.plan.replication.slots);
    assert.deepEqual(
      instance.openObjects(null).map((object) => object.digest(NOW)),
      before,
    );
  });
});

describe('a snapshot’s head', () => {
  const shape: SnapshotShape = {
    objects: 2,
    slots: 2,
    arenaBytes: 4096,
    layout: [1, 2],
    shapes: [{}, { capacity: 8 }],
  };
  const vector = fc
    .tuple(
      fc.nat({ max: 2 ** 31 }),
      fc.nat({ max: 1000 }),
      fc.array(fc.integer({ min: 1, max: 50 }), { maxLength: 40 }),
    )
    .map(([incarnation, contiguous, steps]): OriginVector => {
      const ranges: number[] = [];
      let at = contiguous;
      for (let i = 0; i + 1 < steps.length; i += 2) {
        ranges.push(at + 1 + steps[i], at + steps[i] + steps[i + 1]);
        at = ranges[ranges.length - 1];
      }
      return { incarnation, contiguous, ranges };
    });
  const LIVES = Array.from({ length: 2 }, (_, slot) => new Array<number>(INCARNATIONS_FLOATS).fill(slot));
  const table = fc.array(fc.array(vector, { minLength: 2, maxLength: 2 }), { minLength: 2, maxLength: 2 });

  it('is read as it was written', () => {
    fc.assert(
      fc.property(table, table, (present, former) => {
        const head = { donor: 1, unixMs: 1e12, lacks: [1], vectors: { present, former, incarnations: LIVES } };
        const bytes = encodeHead(shape, head);
        const vectorsAt = LENGTH_BYTES + headLength(bytes.subarray(0, LENGTH_BYTES));
        const start = decodeStart(bytes.subarray(LENGTH_BYTES, vectorsAt), shape);
        assert.equal(bytes.length, vectorsAt + start.vectorBytes);
        assert.deepEqual(decodeHead(start, bytes.subarray(vectorsAt), shape), head);
      }),
    );
  });

  it('is refused, or read within bounds, whatever is in it', () => {
    const strange = fc.oneof(
      fc.double(),
      fc.constantFrom(-1, 0, 0.5, 1, 2, 65, 2 ** 53, Number.NaN, Number.POSITIVE_INFINITY),
    );
    fc.assert(
      fc.property(table, fc.array(fc.tuple(fc.nat({ max: 60 }), strange), { maxLength: 3 }), (present, changes) => {
        const numbers = encodeVectors({ present, former: present, incarnations: LIVES });
        for (const [at, value] of changes) numbers[at % numbers.length] = value;
        try {
          const vectors = decodeVectors(numbers, 2, 2);
          for (const { incarnation, contiguous, ranges } of [...vectors.present, ...vectors.former].flat()) {
            assert.ok(Number.isSafeInteger(incarnation) && incarnation >= 0);
            let last = contiguous;
            for (const bound of ranges) {
              assert.ok(bound >= last);
              last = bound;
            }
          }
        } catch (error) {
          assert.ok(error instanceof RangeError, String(error));
        }
      }),
    );
  });

  it('is refused with any other number in its place', () => {
    const { layout, shapes } = shape;
    const good = {
      ...{ format: 3, objects: 2, slots: 2, vectorBytes: 64, arenaBytes: 4096, donor: 0, unixMs: 1 },
      ...{ layout, shapes, lacks: [1] },
    };
    assert.ok(decodeStart(encodeCbor(good), shape));
    for (const field of Object.keys(good))
      for (const wrong of [-1, 0.5, Number.NaN, 2 ** 60, vectorBytesMax(2, 2) + 8, '1', null, [1]]) {
        if (field === 'unixMs' && wrong === vectorBytesMax(2, 2) + 8) continue; // any time is a time
        if (field === 'lacks' && Array.isArray(wrong)) continue;
        const bad = encodeCbor({ ...good, [field]: wrong });
        assert.throws(() => decodeStart(bad, shape), Error, `field ${field}: ${wrong}`);
      }
    assert.throws(() => decodeStart(encodeCbor({ ...good, more: 1 }), shape), /unknown field "more"/);
    assert.throws(() => headLength(Uint8Array.of(1, 16, 0, 0)), /head of 4097 bytes/);
  });

  it('says what an instance’s state is like', async () => {
    const { instance } = await BusySite.create({ members: MEMBERS, cells: 64 });
    const { objects, slots, arenaBytes, layout } = shapeOf(instance);
    assert.deepEqual([objects, slots, arenaBytes], [3, 3, instance.arena.bytes]);
    assert.deepEqual(layout, instance.arena.layoutHash);
  });
});

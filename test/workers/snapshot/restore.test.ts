/** What a restored state file means: to counts in increments, and to vectors. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { AckBoard } from '../../../shm/ack-board.js';
import { INCARNATIONS_FLOATS, SlotIncarnations, VectorRecord } from '../../../shm/board-records.js';
import { writerId } from '../../../workers/engine/instance.js';
import { loadSnapshot } from '../../../workers/snapshot/load.js';
import { type Candidate, restorer } from '../../../workers/snapshot/offer.js';
import { restoredVectors } from '../../../workers/snapshot/restore.js';
import { MEMBERS, NOW, Still } from './still.js';

const INCREMENTS = 1;
const CELLS = 4;

/** A site, and the increments it has numbered in this start. */
class Counting {
  readonly still: Still;
  readonly self: number;
  readonly told: Int32Array[] = [];
  private readonly board: AckBoard;

  constructor(still: Still, self: number) {
    this.still = still;
    this.self = self;
    this.board = new AckBoard(still.site.instance.buffers.ackBoard);
  }

  get incarnation(): number {
    return this.board.incarnation;
  }

  count(counts: readonly (readonly [number, number])[]): void {
    for (const [cell, n] of counts) {
      this.still.count(cell, n);
      for (const { object, words } of this.still.tell())
        if (object === INCREMENTS) this.told.push(Int32Array.from(words));
    }
    this.board.setNumbered(INCREMENTS, this.told.length);
  }

  /**
   * Takes what it lacks of the other's increments, up to number `through`, as the receive thread
   * does.
   */
  hear(other: Counting, through: number): void {
    const { instance } = this.still.site;
    const [, increments] = instance.openObjects({ id: writerId(2), journal: instance.journal(2), log: null });
    const slot = other.self - 1;
    const vector = new VectorRecord();
    this.board.readReception(INCREMENTS, slot, vector);
    const first = vector.incarnation === other.incarnation ? vector.contiguous : 0;
    for (const words of other.told.slice(first, through)) increments.apply(1, words, 0, words.length, slot, NOW);
    vector.incarnation = other.incarnation;
    vector.contiguous = Math.max(first, through);
    this.board.writeReception(INCREMENTS, slot, vector);
  }

  get sums(): number[] {
    return Array.from({ length: CELLS }, (_, cell) => this.still.increments.value(cell));
  }

  /**
   * The next start of a site, from the state of `saved`: by its own file, or as a member that takes
   * a snapshot.
   */
  static async from(saved: Counting, self: number, isRestored: boolean): Promise<Counting> {
    const { site } = await Still.create(self);
    const { instance, objects } = site;
    const head = await saved.still.snapshotInto(instance.buffers.arena);
    const file = { slot: self - 1, incarnation: saved.incarnation, members: MEMBERS.map(({ id }) => id) };
    const vectors = isRestored ? restoredVectors(head.vectors, file, (slot) => MEMBERS[slot].id) : head.vectors;
    loadSnapshot(instance, objects, { ...head, vectors });
    return new Counting(new Still(site), self);
  }
}

const plus = (sums: readonly number[], more: readonly Int32Array[]): number[] => {
  const result = [...sums];
  for (const [cell, n] of more) result[cell] += n;
  return result;
};
const ZERO = new Array<number>(CELLS).fill(0);

describe('a state file that is restored', () => {
  const counts = fc.array(fc.tuple(fc.nat({ max: CELLS - 1 }), fc.integer({ min: 1, max: 9 })), { maxLength: 6 });
  const each = <T>(of: fc.Arbitrary<T>) => fc.tuple(of, of, of);

  it('has every increment at most once, whichever of three sites restores, and all agree from then on', () =>
    fc.assert(
      fc.asyncProperty(
        each(counts),
        each(each(fc.nat({ max: 6 }))),
        fc.nat({ max: 2 }),
        each(counts),
        async (...given) => {
          const [before, heard, chosen, after] = given;
          const sites = await Promise.all([1, 2, 3].map(async (self) => new Counting(await Still.create(self), self)));
          sites.forEach((site, i) => {
            site.count(before[i]);
          });
          const through = sites.map((site, i) =>
            sites.map((other, j) => (i === j ? site.told.length : Math.min(heard[i][j], other.told.length))),
          );
          sites.forEach((site, i) => {
            sites.forEach((other, j) => {
              if (i !== j) site.hear(other, through[i][j]);
            });
          });
          const saver = sites[chosen];
          const known = sites.flatMap((site, j) => site.told.slice(0, through[chosen][j]));
          const restored = await Counting.from(saver, saver.self, true);
          assert.deepEqual(restored.sums, plus(ZERO, known), 'what the file has, once');
          // A member that did not restart goes on: only what the file lacks of it is applied.
          for (const other of sites) if (other !== saver) restored.hear(other, other.told.length);
          const all = sites.flatMap(({ told }) => told);
          assert.deepEqual(restored.sums, plus(ZERO, all));
          // The others start anew with a snapshot of it, and all go on counting.
          const next = await Promise.all(
            [1, 2, 3].map((self) => (self === saver.self ? restored : Counting.from(restored, self, false))),
          );
          next.forEach((site, i) => {
            site.count(after[i]);
          });
          for (const site of next) for (const other of next) if (site !== other) site.hear(other, other.told.length);
          const more = next.flatMap(({ told }) => told);
          for (const site of next) assert.deepEqual(site.sums, plus(ZERO, [...all, ...more]), `site ${site.self}`);
        },
      ),
      { numRuns: 8 },
    ));

  it('is of a former incarnation, and keeps what it knew of the others', async () => {
    const [a, b] = [new Counting(await Still.create(1), 1), new Counting(await Still.create(2), 2)];
    a.count([[0, 1]]);
    b.count([
      [1, 1],
      [1, 2],
    ]);
    a.hear(b, 2);
    const restored = await Counting.from(a, 1, true);
    const board = new AckBoard(restored.still.site.instance.buffers.ackBoard);
    const vector = new VectorRecord();
    board.readFormer(INCREMENTS, 0, vector);
    assert.deepEqual([vector.incarnation, vector.contiguous], [a.incarnation, 1]);
    board.readReception(INCREMENTS, 1, vector);
    assert.deepEqual([vector.incarnation, vector.contiguous], [b.incarnation, 2]);
    assert.equal(board.numbered(INCREMENTS), 0, 'it numbers anew');
    const life = new SlotIncarnations();
    board.readIncarnations(0, life);
    assert.deepEqual([life.current, life.former, life.isClosed], [0, a.incarnation, true]);
    // Also when it is not spoken of any more (closing.ts), or its units would be applied again.
    assert.ok(life.isOver(a.incarnation) && !life.isOver(restored.incarnation));
  });

  it('says nothing of a slot that another member has by now', () => {
    const vector = { incarnation: 5, contiguous: 7, ranges: [] };
    const table = [[vector, vector, vector]];
    const incarnations = [0, 1, 2].map(() => new Array<number>(INCARNATIONS_FLOATS).fill(5));
    const file = { slot: 0, incarnation: 9, members: [1, 2, 3] };
    const vectors = restoredVectors({ present: table, former: table, incarnations }, file, (slot) => [1, 2, 4][slot]);
    assert.deepEqual(
      vectors.present[0].map(({ incarnation }) => incarnation),
      [0, 5, 0],
    );
    assert.deepEqual(vectors.incarnations[2], new Array<number>(INCARNATIONS_FLOATS).fill(0));
    assert.deepEqual(vectors.incarnations[1], incarnations[1]);
  });

  it('is restored by the same member, whoever chooses', () => {
    const candidate = fc.record({ slot: fc.nat({ max: 63 }), savedMs: fc.nat({ max: 3 }) });
    fc.assert(
      fc.property(fc.uniqueArray(candidate, { selector: ({ slot }: Candidate) => slot }), (candidates) => {
        const chosen = restorer(candidates);
        assert.deepEqual(restorer([...candidates].reverse()), chosen);
        assert.equal(
          chosen === null,
          candidates.every(({ savedMs }) => savedMs === 0),
        );
        if (chosen !== null) assert.ok(candidates.every(({ savedMs }) => savedMs <= chosen.savedMs));
      }),
    );
  });
});

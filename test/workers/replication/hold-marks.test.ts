import { strict as assert } from 'node:assert';
import { createHoldBoard, HoldBoard } from '../../../shm/hold-board.js';
import { HoldMarks, MARKS_MAX } from '../../../workers/replication/sending/hold-marks.js';
import { seeded } from '../../../workers/transport/fault.js';
import { NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

const SLOTS = 4;
const OBJECTS = 2;
const WORKERS = 2;

/**
 * Logs, members and what they have, kept apart from what is tested: each record by its place in a
 * log and its number.
 */
class Model {
  readonly memory = createHoldBoard(WORKERS, SLOTS);
  readonly board = new HoldBoard(this.memory);
  readonly live = [false, true, true, true];
  readonly through = Array.from({ length: OBJECTS }, () => new Array<number>(SLOTS).fill(0));
  readonly positions: Int32Array;
  readonly numbers = new Float64Array(OBJECTS);
  readonly marks: HoldMarks;
  /** Of each record: worker, words of its log up to its end, object, number. */
  readonly records: { worker: number; end: number; object: number; number: number }[] = [];
  private readonly words: number[];
  private readonly random: () => number;

  constructor(seed: number, start = 0) {
    this.random = seeded(seed);
    this.words = new Array<number>(WORKERS).fill(start);
    this.positions = new Int32Array(WORKERS).fill(start);
    this.marks = new HoldMarks(this.memory, OBJECTS, SLOTS, {
      isLive: (member) => this.live[member],
      through: (object, member) => this.through[object][member],
    });
  }

  draw(below: number): number {
    return Math.floor(this.random() * below);
  }

  /** Some records of both workers are numbered. */
  log(count = this.draw(4)): void {
    for (let n = 0; n < count; n++) {
      const worker = this.draw(WORKERS);
      const object = this.draw(OBJECTS);
      this.words[worker] += 2 + this.draw(5);
      this.records.push({ worker, end: this.words[worker], object, number: ++this.numbers[object] });
    }
    for (let worker = 0; worker < WORKERS; worker++) this.positions[worker] = this.words[worker];
    this.marks.note(this.positions, this.numbers);
  }

  /** A member has some more of an object. */
  acknowledge(member: number, object: number, share: number): void {
    const through = this.through[object];
    through[member] += Math.floor((this.numbers[object] - through[member]) * share);
  }

  /** The end of the worker's log, in whole words, that has been published for that many members. */
  published(worker: number, count: number): number {
    const behind = (this.words[worker] - this.board.position(worker, count)) >>> 0;
    return this.words[worker] - behind;
  }

  /** Members that have every record of the log up to `end`. */
  having(worker: number, end: number): number {
    const upTo = this.records.filter((record) => record.worker === worker && record.end <= end);
    return this.live.filter(
      (_, member) => member > 0 && upTo.every(({ object, number }) => number <= this.through[object][member]),
    ).length;
  }
}

describe('hold marks', () => {
  it('never publish what not so many members have, and everything once they do', () => {
    for (let seed = 1; seed <= 40; seed++) {
      // The logs' positions wrap on the way.
      const model = new Model(seed, 2 ** 32 - 300);
      for (let step = 0; step < 120; step++) {
        model.log();
        const lagging = model.draw(SLOTS);
        for (let member = 1; member < SLOTS; member++)
          if (member !== lagging) model.acknowledge(member, model.draw(OBJECTS), model.draw(5) / 4);
        if (model.draw(10) === 0) model.live[1 + model.draw(3)] = model.draw(2) === 0;
        model.marks.publish();
        for (let worker = 0; worker < WORKERS; worker++)
          for (let k = 1; k < SLOTS; k++) {
            const position = model.board.position(worker, k);
            if (position === 0) continue; // nothing yet
            const end = model.published(worker, k);
            assert.ok(model.having(worker, end) >= k, `seed ${seed}, step ${step}: ${k} members do not have it`);
          }
      }
      model.live.fill(true, 1);
      for (let member = 1; member < SLOTS; member++)
        for (let object = 0; object < OBJECTS; object++) model.acknowledge(member, object, 1);
      model.marks.publish();
      assert.equal(model.marks.count, 0);
      for (let k = 1; k < SLOTS; k++) assert.equal(model.board.position(0, k), model.positions[0]);
    }
  });

  it('count members that have everything, not the records of each', () => {
    const model = new Model(1);
    while (model.numbers.some((number) => number < 3)) model.log(2);
    model.acknowledge(1, 0, 1);
    model.acknowledge(2, 1, 1);
    model.marks.publish();
    assert.equal(model.board.position(0, 1), 0, 'each object has one member, but no member both');
    model.acknowledge(1, 1, 1);
    model.marks.publish();
    assert.equal(model.board.position(0, 1), model.positions[0]);
    assert.equal(model.board.position(0, 2), 0);
  });

  it('do not count a member that is not heard', () => {
    const model = new Model(2);
    model.live.fill(false);
    model.log(5);
    for (const object of [0, 1]) model.acknowledge(1, object, 1);
    model.marks.publish();
    assert.equal(model.board.position(0, 1), 0);
    model.live[1] = true;
    model.marks.publish();
    assert.equal(model.board.position(0, 1), model.positions[0]);
  });

  it('take no more memory whoever is silent, and stay exact at the end of the log', () => {
    const model = new Model(3);
    for (let n = 0; n < 20 * MARKS_MAX; n++) model.log(1);
    assert.ok(model.marks.count <= MARKS_MAX);
    const latest = Int32Array.from(model.positions);
    for (const object of [0, 1]) model.acknowledge(2, object, 1);
    model.log(1);
    model.marks.publish();
    for (let worker = 0; worker < WORKERS; worker++)
      assert.equal(model.board.position(worker, 1), latest[worker], 'all but the last record');
  });
});

describe('hold marks of a sender', () => {
  /** Logs a record of member 0, at this position of its worker's log. */
  function log(network: Network, id: number, position: number): void {
    assert.ok(network.append(0, 0, NOTE, id));
    network.members[0].sender.noteLogs(Int32Array.of(position));
  }

  it('publish a position once as many members have it as it says, and ask to be told at once', () => {
    const network = new Network({ seed: 5, members: 3, deliveries: ['any-order'], delayMs: [10, 10] });
    const board = new HoldBoard(network.members[0].holds);
    network.run(500);
    network.drop = (_from, to) => to === 2;
    assert.ok(!network.members[0].sender.isAskedForMarks, 'nobody asked');
    board.ask();
    assert.ok(network.members[0].sender.isAskedForMarks);
    const { rings } = network.members[0];
    log(network, 1, 40);
    network.run(9);
    assert.equal(board.position(0, 1), 0, 'it is not even there');
    assert.ok(
      network.runUntil(() => board.position(0, 1) === 40, 100),
      'member 1 has it',
    );
    assert.ok(network.members[0].rings > rings, 'the acknowledgement rang');
    assert.equal(board.position(0, 2), 0, 'member 2 has not');
    network.drop = null;
    assert.ok(network.runUntil(() => board.position(0, 2) === 40, 2000));
  });

  it('go on where a send thread died', () => {
    const network = new Network({ seed: 6, members: 2, deliveries: ['any-order'], delayMs: [5, 5] });
    const board = new HoldBoard(network.members[0].holds);
    board.ask();
    network.run(500);
    log(network, 1, 20);
    network.members[0].startSender();
    network.members[0].sender.noteLogs(Int32Array.of(20));
    assert.ok(network.runUntil(() => board.position(0, 1) === 20, 2000));
  });

  it('wait for no member that is silent', () => {
    const network = new Network({ seed: 7, members: 3, deliveries: ['any-order'], delayMs: [5, 5] });
    const board = new HoldBoard(network.members[0].holds);
    network.run(500);
    network.members[2].up = false;
    log(network, 1, 20);
    assert.ok(network.runUntil(() => board.position(0, 1) === 20, 1000));
    network.run(1500); // member 2 is silent by now, and does not count though its slot is there
    log(network, 2, 30);
    assert.ok(network.runUntil(() => board.position(0, 1) === 30, 1000));
    assert.equal(board.position(0, 2), 0);
  });
});

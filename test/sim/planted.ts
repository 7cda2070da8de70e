/**
 * Bugs of the protocol, planted by overriding methods of the core. The core has no hooks for this.
 */

import { AckBoard } from '../../shm/ack-board.js';
import { CounterCells } from '../../shm/objects/counting/counter-cells.js';
import { SealBoard } from '../../shm/seal-board.js';
import { Joining } from '../../workers/replication/membership/joining.js';
import { Closing } from '../../workers/replication/receiving/closing.js';
import { Belief, Beliefs } from '../../workers/replication/receiving/incarnations.js';
import { ReceiveChannel } from '../../workers/replication/receiving/receive-channel.js';
import { ReorderBuffer } from '../../workers/replication/receiving/reorder-buffer.js';
import { Vectors } from '../../workers/replication/receiving/vectors.js';
import { Attachments } from '../../workers/replication/sending/attachments.js';
import { Backlog } from '../../workers/replication/sending/backlog.js';
import { Repair } from '../../workers/replication/sending/repair.js';
import { Retransmission } from '../../workers/replication/sending/retransmission.js';
import { SendChannel } from '../../workers/replication/sending/send-channel.js';
import { ForeignLog } from '../../workers/replication/units/foreign-log.js';
import { Arrival, Reception } from '../../workers/replication/units/reception.js';
import { UnitLog } from '../../workers/replication/units/unit-log.js';
import { MessageWriter } from '../../workers/replication/wire/message.js';
import { ReplayWindow } from '../../workers/replication/wire/replay-window.js';
import { Entry } from './entry.js';
import { Upkeep } from './upkeep.js';
import type { Invariant } from './violation.js';

export interface PlantedBug {
  readonly name: string;
  /** The profile whose runs show the bug, and how many runs are enough. */
  readonly profile: string;
  readonly lives: number;
  /** Invariants that it may break. */
  readonly shows: readonly Invariant[];
  /** Its runs take minutes to compute. */
  readonly isLong?: true;
  /** Plants the bug. The returned function removes it. */
  readonly plant: () => () => void;
}

// biome-ignore lint/suspicious/noExplicitAny: overridden methods are private to the core, which has no hooks for this.
type Method = (this: any, ...args: any[]) => any;

/** Replaces a method by `make(original)`. The returned function restores it. */
function override(type: { readonly prototype: object }, name: string, make: (original: Method) => Method): () => void {
  const methods = type.prototype as Record<string, Method>;
  const original = methods[name];
  if (original === undefined) throw new Error(`there is no method ${name} to plant a bug in`);
  methods[name] = make(original);
  return () => {
    methods[name] = original;
  };
}

function both(...planted: readonly (() => void)[]): () => void {
  return () => {
    for (const uproot of planted) uproot();
  };
}

/** The log of the units that are being retransmitted; null if none are. */
let resending: UnitLog | null = null;

export const PLANTED: readonly PlantedBug[] = [
  {
    name: 'skip a retransmission: that of the latest unit',
    profile: 'lossy',
    lives: 10,
    shows: ['converges'],
    plant: () =>
      override(
        Retransmission,
        'scan',
        (scan) =>
          function (now) {
            const found = scan.call(this, now);
            return found > 0 && this.log.load(this.due[found - 1]) === this.log.unsent ? found - 1 : found;
          },
      ),
  },
  {
    name: 'apply a unit twice that comes twice',
    profile: 'lossy',
    lives: 10,
    shows: ['applied-once', 'applied-in-order'],
    plant: () =>
      override(
        ReceiveChannel,
        'takeUnit',
        (takeUnit) =>
          function (reader, coarse) {
            const { first, count, words, recordsAt, recordWords } = reader;
            if (this.reception.classify(first, first + count - 1) === Arrival.DUPLICATE)
              this.apply(first, words, recordsAt, recordWords, coarse);
            return takeUnit.call(this, reader, coarse);
          },
      ),
  },
  {
    name: 'begin together with members that only say that they are joining',
    profile: 'start',
    lives: 30,
    shows: ['equal-to-others', 'vector-delivered', 'applied-in-order'],
    plant: () => override(Joining, 'disagreeing', () => () => -1),
  },
  {
    name: 'believe an incarnation that answers nothing, because it is not known to have ended',
    profile: 'misclock',
    lives: 15,
    shows: ['living-kept', 'vector-delivered'],
    plant: () =>
      override(
        Beliefs,
        'judge',
        (judge) =>
          function (member, life, incarnation, ...heard) {
            const belief = judge.call(this, member, life, incarnation, ...heard);
            const hasEnded = incarnation === life.former || life.isOver(incarnation);
            return belief === Belief.NOT && !hasEnded ? Belief.NEW : belief;
          },
      ),
  },
  {
    name: 'go on under an incarnation that the members take for an earlier one',
    profile: 'misclock',
    lives: 6,
    shows: ['converges'],
    plant: () => override(AckBoard, 'setOutrun', () => () => {}),
  },
  {
    name: 'accept an old incarnation',
    profile: 'crash',
    lives: 20,
    shows: [
      'applied-once',
      'vector-delivered',
      'applied-in-order',
      'converges',
      'applied-what-was-said',
      'forgery-refused',
    ],
    plant: () =>
      override(
        Beliefs,
        'judge',
        (judge) =>
          function (member, life, ...heard) {
            const belief = judge.call(this, member, life, ...heard);
            return belief === Belief.NOT ? Belief.PRESENT : belief;
          },
      ),
  },
  {
    name: 'let the vector pass a gap',
    profile: 'lossy',
    lives: 10,
    shows: ['vector-delivered'],
    plant: () =>
      override(
        Reception,
        'add',
        (add) =>
          function (first, last) {
            if (first > this.contiguous + 1) this.advance(last);
            else add.call(this, first, last);
          },
      ),
  },
  {
    name: 'prune a unit before all have it',
    profile: 'lossy',
    lives: 10,
    shows: ['vector-delivered'],
    plant: () =>
      override(
        UnitLog,
        'prune',
        (prune) =>
          function (sequence, wordsMax) {
            return prune.call(this, sequence + 2, wordsMax);
          },
      ),
  },
  {
    name: 'take a round trip from a retransmission',
    profile: 'lossy',
    lives: 10,
    shows: ['round-trip-true'],
    plant: () =>
      both(
        override(
          SendChannel,
          'retransmit',
          (retransmit) =>
            function (now, outlet) {
              resending = this.log;
              try {
                return retransmit.call(this, now, outlet);
              } finally {
                resending = null;
              }
            },
        ),
        override(
          MessageWriter,
          'begin',
          (begin) =>
            function (into, object, datagram, nowMs) {
              resending?.load(resending.head);
              begin.call(this, into, object, datagram, resending?.sentAt ?? nowMs);
            },
        ),
      ),
  },
  {
    name: 'apply at once what is to wait for its turn',
    profile: 'lossy',
    lives: 20,
    shows: ['applied-in-order'],
    plant: () =>
      override(
        ReceiveChannel,
        'takeUnit',
        (takeUnit) =>
          function (reader, coarse) {
            this.reorder = null;
            return takeUnit.call(this, reader, coarse);
          },
      ),
  },
  {
    name: 'lose a unit that waits for its turn',
    profile: 'lossy',
    lives: 20,
    shows: ['applied-in-order', 'vector-delivered'],
    plant: () =>
      override(
        ReorderBuffer,
        'add',
        (add) =>
          function (...unit) {
            return this.units > 0 || add.call(this, ...unit);
          },
      ),
  },
  {
    name: 'claim, after a receive thread died, what was waiting in it',
    profile: 'threads',
    lives: 20,
    shows: ['applied-in-order', 'vector-delivered'],
    plant: () => override(Reception, 'forgetRanges', () => () => {}),
  },
  {
    name: 'acknowledge what was locked',
    profile: 'narrow',
    lives: 20,
    shows: ['vector-delivered', 'applied-in-order', 'equal-to-model', 'equal-to-others'],
    plant: () =>
      override(
        ReceiveChannel,
        'apply',
        (apply) =>
          function (...unit) {
            apply.call(this, ...unit);
            return true;
          },
      ),
  },
  {
    name: 'give a number twice after a send thread died',
    profile: 'threads',
    lives: 20,
    shows: ['unit-cut-once', 'no-crash'],
    plant: () =>
      override(
        UnitLog,
        'open',
        (open) =>
          function () {
            open.call(this);
            if (this.units > 0) this.nextSequence--;
          },
      ),
  },
  {
    name: 'fold an exact unit',
    profile: 'straggler',
    lives: 20,
    shows: ['unit-cut-once', 'converges', 'vector-delivered', 'applied-once', 'applied-in-order', 'alarm-expected'],
    plant: () =>
      override(
        Backlog,
        'addExact',
        () =>
          function (...unit) {
            this.add(...unit);
            return true;
          },
      ),
  },
  {
    name: 'ignore a late detach: go on sending the log’s units to who is owed',
    profile: 'straggler',
    lives: 20,
    shows: ['unit-cut-once', 'applied-in-order', 'applied-once', 'equal-to-model', 'vector-delivered'],
    plant: () =>
      override(
        Attachments,
        'maskFor',
        (maskFor) =>
          function (first) {
            maskFor.call(this, first);
            this.maskLow = 0;
            this.maskHigh = 0;
          },
      ),
  },
  {
    name: 'send folded units as exact ones once exact units are behind them',
    profile: 'relapse',
    lives: 40,
    isLong: true,
    shows: ['unit-cut-once', 'vector-delivered', 'applied-once'],
    plant: () =>
      override(
        Backlog,
        'isFolded',
        (isFolded) =>
          function (first) {
            const last = this.foldedRuns[this.foldedRuns.length - 1];
            return this.log.nextSequence - 1 <= last && isFolded.call(this, first);
          },
      ),
  },
  {
    name: 'send new units before those that are due again',
    profile: 'overload',
    lives: 20,
    isLong: true,
    shows: ['due-sent', 'converges'],
    plant: () =>
      override(
        SendChannel,
        'recover',
        (recover) =>
          function (now) {
            const sent = this.context.peers.others > 0 ? this.sendNew(now, this.context.pacing.data) : 0;
            return sent + recover.call(this, now);
          },
      ),
  },
  {
    name: 'claim what a snapshot has when it is joined with the state',
    profile: 'resync',
    lives: 100,
    isLong: true,
    shows: ['alarm-expected', 'converges', 'equal-to-others', 'equal-to-model'],
    plant: () =>
      override(
        Upkeep,
        'mergeSubject',
        (mergeSubject) =>
          function (subject, capture, vectors) {
            mergeSubject.call(this, subject, capture, vectors);
            const { board, member } = this.instance;
            const ours = new Reception();
            for (const [slot, { incarnation, contiguous }] of vectors.entries()) {
              ours.clear();
              board.readReception(subject.receive.id, slot, ours);
              if (slot === member || incarnation !== ours.incarnation || contiguous <= ours.contiguous) continue;
              ours.advance(contiguous);
              board.writeReception(subject.receive.id, slot, ours);
            }
            this.instance.startReceiver();
          },
      ),
  },
  {
    name: 'merge the total of a former life twice',
    profile: 'join',
    lives: 20,
    shows: ['equal-to-model', 'equal-to-others'],
    plant: () =>
      override(
        CounterCells,
        'adopt',
        (adopt) =>
          function () {
            adopt.call(this);
            for (let i = this.self; i < this.arena.length; i += this.width) this.arena[i] *= 2;
          },
      ),
  },
  {
    name: 'close an incarnation without asking the others',
    profile: 'succession',
    lives: 5,
    isLong: true,
    shows: ['ended-alike'],
    plant: () =>
      override(
        Closing,
        'tryClose',
        () =>
          function (slot) {
            this.close(slot);
            return true;
          },
      ),
  },
  {
    name: 'accept a snapshot that leaves a gap',
    profile: 'late-join',
    lives: 20,
    isLong: true,
    shows: ['vector-delivered', 'equal-to-others', 'equal-to-model'],
    plant: () => override(Joining, 'refuses', () => () => null),
  },
  {
    name: 'take the snapshot of a donor that is owed a backlog',
    profile: 'debtors',
    lives: 20,
    isLong: true,
    shows: ['unit-cut-once', 'applied-once', 'applied-in-order', 'converges', 'equal-to-model', 'vector-delivered'],
    plant: () => {
      const owed = Object.getOwnPropertyDescriptor(Entry.prototype, 'hasBacklog') as PropertyDescriptor;
      Object.defineProperty(Entry.prototype, 'hasBacklog', { ...owed, get: () => false });
      return both(
        override(Joining, 'isDetached', () => () => false),
        () => Object.defineProperty(Entry.prototype, 'hasBacklog', owed),
      );
    },
  },
  {
    name: 'keep folded units, to pass them on',
    profile: 'heirs',
    lives: 20,
    isLong: true,
    shows: ['unit-cut-once'],
    plant: () =>
      override(
        ReceiveChannel,
        'keep',
        (keep) =>
          function (reader) {
            const { folded } = reader;
            reader.folded = false;
            keep.call(this, reader);
            reader.folded = folded;
          },
      ),
  },
  {
    name: 'drop half of the units that are kept in case their origin dies',
    profile: 'crash',
    lives: 40,
    isLong: true,
    shows: ['kept-for-others', 'ended-alike'],
    plant: () =>
      override(
        ForeignLog,
        'append',
        (append) =>
          function (incarnation, first, ...unit) {
            return first % 2 === 0 ? 0 : append.call(this, incarnation, first, ...unit);
          },
      ),
  },
  {
    name: 'coalesce what is kept for a member that is joining',
    profile: 'slow-join',
    lives: 20,
    isLong: true,
    shows: [
      'alarm-expected',
      'unit-cut-once',
      'applied-once',
      'applied-in-order',
      'converges',
      'equal-to-model',
      'vector-delivered',
    ],
    plant: () =>
      override(
        Backlog,
        'addExact',
        (addExact) =>
          function (...unit) {
            if (!this.isRetained) return addExact.apply(this, unit);
            this.add(...unit);
            return true;
          },
      ),
  },
  {
    name: 'forget a repair',
    profile: 'crash',
    lives: 20,
    shows: ['ended-alike', 'converges', 'equal-to-others', 'alarm-expected'],
    plant: () => override(Repair, 'passOn', () => () => 0),
  },
  {
    name: 'take what a former life acknowledged for the present one’s',
    profile: 'crash',
    lives: 20,
    shows: ['vector-delivered'],
    plant: () => override(Vectors, 'forget', () => () => {}),
  },
  {
    name: 'take a sealed datagram that was taken before',
    profile: 'sealed',
    lives: 5,
    shows: ['sealed-once'],
    plant: () => override(ReplayWindow, 'isFresh', () => () => true),
  },
  {
    name: 'forget with the receive thread what was taken of sealed datagrams',
    profile: 'sealed',
    lives: 20,
    shows: ['sealed-once'],
    plant: () => override(SealBoard, 'highest', () => () => 0),
  },
];

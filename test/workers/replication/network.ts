/**
 * Members of the protocol core on a simulated network with simulated time, all drawn from a seed.
 * For the core's own tests; every member is a `Sender`, a `Receiver` and a board, as its two
 * threads would have them.
 */

import { createAckBoard } from '../../../shm/ack-board.js';
import { createHoldBoard } from '../../../shm/hold-board.js';
import { MetricCatalogue } from '../../../shm/metrics.js';
import type { Delivery, StateObject } from '../../../shm/objects/core/object.js';
import { Counts, REPLICATION_METRICS } from '../../../workers/replication/metrics.js';
import { Receiver } from '../../../workers/replication/receiving/receiver.js';
import { EVERYONE, type Outlet } from '../../../workers/replication/sending/outlet.js';
import { Sender } from '../../../workers/replication/sending/sender.js';
import {
  memberTableOf,
  type ReplicationOptions,
  type ReplicationSettings,
  replicationSettings,
} from '../../../workers/replication/settings.js';
import { createForeignLogs } from '../../../workers/replication/units/foreign-log.js';
import { createUnitLogs } from '../../../workers/replication/units/unit-log.js';
import { Datagram } from '../../../workers/replication/wire/message.js';
import { seeded } from '../../../workers/transport/fault.js';
import { Ledger } from '../../support/ledger.js';

export const MEANING_HASH = [0x1234567, -0x7654321] as const;
const STEP_MS = 0.25;
const TICK_MS = 10;
/** The wall clocks say this at time 0. */
const WALL_MS = 1_800_000_000_000;

export interface NetworkOptions {
  readonly seed: number;
  readonly members: number;
  readonly deliveries?: readonly Delivery[];
  readonly loss?: number;
  readonly duplicate?: number;
  readonly delayMs?: readonly [number, number];
  readonly multicast?: boolean;
  readonly firstSequence?: number;
  readonly settings?: Partial<ReplicationSettings>;
  /** What each member replicates instead of ledgers, as its two threads have it. */
  readonly objects?: readonly MemberObjects[];
}

export interface MemberObjects {
  readonly sender: readonly StateObject[];
  readonly receiver: readonly StateObject[];
}

interface Flight {
  readonly at: number;
  readonly from: number;
  readonly to: number;
  readonly bytes: Uint8Array;
}

export function testSettings(
  members: number,
  self: number,
  more: Partial<ReplicationOptions> = {},
): ReplicationSettings {
  return replicationSettings({
    clusterId: 0xc0ffee,
    self: self + 1,
    members: Array.from({ length: members }, (_, i) => ({
      id: i + 1,
      name: `m${i + 1}`,
      address: `127.0.0.${i + 1}`,
      port: 7000,
    })),
    ackDelayMs: 2,
    keepaliveMs: 200,
    silentMs: 1000,
    retransmitMsInitial: 100,
    unitLogBytes: 1 << 18,
    foreignLogBytes: 1 << 18,
    ...more,
  });
}

export class TestMember {
  readonly index: number;
  settings: ReplicationSettings;
  objects: Ledger[];
  board: SharedArrayBuffer;
  unitLogs: SharedArrayBuffer;
  foreignLogs: SharedArrayBuffer;
  /** Of one worker. */
  readonly holds: SharedArrayBuffer;
  /** The member table; `new MemberTableWriter(table)` changes it. */
  readonly table: SharedArrayBuffer;
  sender!: Sender;
  receiver!: Receiver;
  counts: Counts;
  rings = 0;
  readonly alarms: string[] = [];
  readonly skews: string[] = [];
  /** How far its wall clock is ahead of the network's time. */
  clockMs = 0;
  up = true;
  private readonly deliveries: readonly Delivery[];
  /** Replicated instead of `objects`. */
  private readonly others: MemberObjects | undefined;

  constructor(index: number, options: NetworkOptions, incarnation: number) {
    this.index = index;
    this.deliveries = options.deliveries ?? ['any-order', 'in-order'];
    this.settings = testSettings(options.members, index, {
      ...options.settings,
      ...(options.multicast && {
        transport: {
          kind: 'multicast',
          group: '239.1.1.0',
          port: 7000,
          interface: '127.0.0.1',
          ttl: 1,
          loopback: true,
        },
      }),
    });
    this.objects = this.deliveries.map((delivery, id) => new Ledger(id, delivery));
    this.others = options.objects?.[index];
    const { length } = this.others?.sender ?? this.objects;
    this.board = createAckBoard(length, options.members, incarnation);
    this.unitLogs = createUnitLogs(length, this.settings.unitLogBytes, options.firstSequence);
    this.foreignLogs = createForeignLogs(length, this.settings.slots, this.settings.foreignLogBytes);
    this.holds = createHoldBoard(1, options.members);
    this.table = memberTableOf(this.settings);
    const catalogue = new MetricCatalogue(REPLICATION_METRICS);
    this.counts = new Counts(catalogue, new Float64Array(REPLICATION_METRICS.length));
    this.startSender();
    this.startReceiver();
  }

  /** A new send thread on the same memory. */
  startSender(): void {
    const { settings, board, unitLogs, foreignLogs, holds, counts, table: members } = this;
    const objects = this.others?.sender ?? this.objects;
    const onAlarm = (problem: string): void => {
      this.alarms.push(problem);
    };
    const shared = { settings, meaningHash: MEANING_HASH, objects, board, foreignLogs, counts, members };
    this.sender = new Sender({ ...shared, unitLogs, holds, onAlarm });
  }

  /** A new receive thread on the same memory. */
  startReceiver(): void {
    const { settings, board, foreignLogs, counts, table: members } = this;
    const objects = this.others?.receiver ?? this.objects;
    const ring = (): void => {
      this.rings++;
    };
    const onSkew = (problem: string): void => {
      this.skews.push(problem);
    };
    const onAlarm = (problem: string): void => {
      this.alarms.push(problem);
    };
    const shared = { settings, meaningHash: MEANING_HASH, objects, board, foreignLogs, counts, members };
    this.receiver = new Receiver({ ...shared, ring, onSkew, onAlarm });
  }
}

export class Network {
  now = 1000;
  readonly members: TestMember[];
  /** Datagrams dropped by number of sends: for tests that lose a chosen one. */
  drop: ((from: number, to: number, bytes: Uint8Array) => boolean) | null = null;
  /**
   * What a link adds to a datagram's delay, in ms; infinite: it is lost. For links that carry only
   * so much.
   */
  link: ((from: number, to: number, bytes: number) => number) | null = null;
  /** What is sent instead of a member's message. */
  rewrite: ((from: number, bytes: Uint8Array) => Uint8Array) | null = null;
  /** Called before delivery; may change the datagram. */
  mangle: ((bytes: Uint8Array) => void) | null = null;
  faults = true;
  sent = 0;
  readonly random: () => number;
  private readonly options: NetworkOptions;
  private flights: Flight[] = [];
  private incarnations = 0;

  constructor(options: NetworkOptions) {
    this.options = options;
    this.random = seeded(options.seed);
    this.members = Array.from({ length: options.members }, (_, i) => this.create(i));
  }

  /**
   * The member comes up anew, with nothing but its place in the list. `incarnation`: if its clock
   * is not to go forward.
   */
  restart(index: number, incarnation?: number): TestMember {
    this.members[index] = this.create(index, incarnation);
    return this.members[index];
  }

  /** One record from `member`. Returns whether there was room. */
  append(member: number, object: number, op: number, ...payload: number[]): boolean {
    const { sender } = this.members[member];
    if (!sender.makeRoom()) return false;
    sender.append(object, op, Int32Array.from(payload), 0, payload.length);
    sender.cut();
    return true;
  }

  /** Lets time pass. */
  run(ms: number): void {
    const end = this.now + ms;
    while (this.now < end) {
      this.now += STEP_MS;
      this.step();
    }
  }

  /** Lets time pass until `condition`; false when `limitMs` passed first. */
  runUntil(condition: () => boolean, limitMs: number): boolean {
    const end = this.now + limitMs;
    while (this.now < end) {
      if (condition()) return true;
      this.run(1);
    }
    return condition();
  }

  /** Whether every member that is up has had all its units acknowledged. */
  get settled(): boolean {
    return this.members.every((member) => !member.up || (member.sender.keptUnits === 0 && !member.sender.hasUnsent));
  }

  private create(index: number, incarnation?: number): TestMember {
    this.incarnations++;
    return new TestMember(index, this.options, incarnation ?? 2 ** 40 + this.incarnations);
  }

  private step(): void {
    const due = this.flights.filter((flight) => flight.at <= this.now);
    if (due.length > 0) {
      this.flights = this.flights.filter((flight) => flight.at > this.now);
      due.sort((a, b) => a.at - b.at);
      for (const { to, bytes } of due) {
        const member = this.members[to];
        if (!member.up) continue;
        this.mangle?.(bytes);
        member.receiver.receive(bytes, this.now, 0, this.wall(member));
      }
    }
    for (const member of this.members) {
      if (!member.up) continue;
      if (this.now % TICK_MS === 0) member.receiver.tick(this.now);
      for (let i = 0; i < 1000 && member.sender.poll(this.now, this.outlet(member.index), this.wall(member)) > 0; i++);
    }
  }

  private wall(member: TestMember): number {
    return WALL_MS + this.now + member.clockMs;
  }

  private outlet(from: number): Outlet {
    return {
      claim: () => new Datagram(9216),
      send: (datagram, bytes, _object, member, spareLow, spareHigh) => {
        this.sent++;
        const written = datagram.bytes.slice(0, bytes);
        const message = this.rewrite?.(from, written) ?? written;
        this.members.forEach((_, to) => {
          if (to === from) return;
          const spare = ((to < 32 ? spareLow : spareHigh) >>> (to & 31)) & 1;
          const isForAll = member === EVERYONE && (spare === 0 || this.options.multicast === true);
          if (isForAll || member === to) this.launch(from, to, message);
        });
      },
    };
  }

  private launch(from: number, to: number, message: Uint8Array): void {
    if (this.drop?.(from, to, message)) return;
    const { loss = 0, duplicate = 0, delayMs = [1, 5] } = this.options;
    const copies = this.faults && this.random() < duplicate ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      if (this.faults && this.random() < loss) continue;
      const queued = this.link?.(from, to, message.length) ?? 0;
      if (queued === Number.POSITIVE_INFINITY) continue;
      const at = this.now + queued + delayMs[0] + this.random() * (delayMs[1] - delayMs[0]);
      this.flights.push({ at, from, to, bytes: message.slice() });
    }
  }
}

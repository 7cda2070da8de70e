/**
 * The receive thread: takes the other members' messages, applies their operations, and tells the
 * send thread, through the acknowledgement board, what to acknowledge and what has been
 * acknowledged.
 *
 * A thin shell around `replication/receiver.ts`: it brings the clock, the sockets and the opening
 * of what is sealed. It lives on socket events alone; a slow timer looks at the phase and shows the
 * heartbeat, as every message does. In between it is away at the barrier (shm/barrier.ts).
 */

import { coarseSeconds } from '../shm/clock.js';
import { type Control, Phase } from '../shm/control.js';
import type { Metrics } from '../shm/metrics.js';
import type { StateObject } from '../shm/objects/object.js';
import { RejectTable } from '../shm/reject-table.js';
import type { Agent } from './agent.js';
import { monotonicMs } from './monotonic.js';
import type { SkewLevel } from './replication/clock-skew.js';
import { Counts, REFUSALS, type Refusal } from './replication/metrics.js';
import { Receiver } from './replication/receiver.js';
import { Opener } from './replication/seal.js';
import { memberTableOf, messageBytes, type ReplicationSettings } from './replication/settings.js';
import { receiveTransport } from './transport/open.js';
import type { ReceiveTransport } from './transport/transport.js';

export interface ReceiveAgentOptions {
  readonly settings: ReplicationSettings;
  readonly meaningHash: readonly [number, number];
  /** In the order of their ids, opened to write, without a log. */
  readonly objects: readonly StateObject[];
  readonly ackBoard: SharedArrayBuffer;
  /** From `createForeignLogs`. */
  readonly foreignLogs: SharedArrayBuffer;
  /** The member table; absent: the settings' members, for good. */
  readonly members?: SharedArrayBuffer;
  /** From `createSealBoard`; null takes what is not sealed. */
  readonly sealBoard: SharedArrayBuffer | null;
  /** From `createRejectTable`. */
  readonly rejects: SharedArrayBuffer;
  readonly control: Control;
  readonly metrics: Metrics;
  /** Our slot: metrics row and heartbeat. */
  readonly thread: number;
  /** Told of errors thrown by a state object's own code; each is counted too. */
  readonly onError?: (error: unknown, object: number, origin: number) => void;
  /** Told of clocks too far apart; see `ReceiverOptions`. */
  readonly onSkew?: (problem: string, level: SkewLevel) => void;
  /** Told what somebody has to see to. */
  readonly onAlarm?: (problem: string) => void;
  /** Run some times a second, as to take over options that changed. */
  readonly look?: () => void;
  /** Another transport than the settings', for tests. */
  readonly transport?: ReceiveTransport;
}

const TICK_MS = 100;

export class ReceiveAgent implements Agent {
  readonly receiver: Receiver;
  private readonly control: Control;
  private readonly look: () => void;
  private readonly thread: number;
  private readonly transport: ReceiveTransport;
  private readonly counts: Counts;
  private readonly opener: Opener | null;
  private readonly rejects: RejectTable;
  private readonly onAlarm: (problem: string) => void;
  private received = 0;
  private warnedOfMeaning = false;
  private transportErrors = 0;

  constructor(options: ReceiveAgentOptions) {
    const { settings, meaningHash, objects, control, metrics, thread } = options;
    this.control = control;
    this.look = options.look ?? (() => {});
    this.thread = thread;
    this.onAlarm = options.onAlarm ?? (() => {});
    this.counts = new Counts(metrics.catalogue, metrics.row(thread));
    this.receiver = new Receiver({
      settings,
      meaningHash,
      objects,
      board: options.ackBoard,
      foreignLogs: options.foreignLogs,
      counts: this.counts,
      ring: () => control.ring(),
      ...(options.members && { members: options.members }),
      ...(options.onError && { onError: options.onError }),
      ...(options.onSkew && { onSkew: options.onSkew }),
      ...(options.onAlarm && { onAlarm: options.onAlarm }),
    });
    this.rejects = new RejectTable(options.rejects);
    this.opener =
      options.sealBoard === null
        ? null
        : new Opener({
            clusterId: settings.clusterId,
            self: settings.self,
            members: options.members ?? memberTableOf(settings),
            messageBytes: messageBytes(settings),
            board: options.sealBoard,
            now: monotonicMs(),
          });
    this.transport = options.transport ?? receiveTransport(settings, objects.length);
  }

  /**
   * Opens the sockets; from here on messages are taken. Throws an error that names the address that
   * cannot be used.
   */
  async onStart(): Promise<void> {
    const { barrier } = this.control;
    await this.transport.open((datagram, source) => {
      barrier.enter(this.thread);
      this.received++;
      const now = monotonicMs();
      const refusal = this.take(datagram, now);
      if (refusal !== null) this.rejects.note(source, REFUSALS.indexOf(refusal), now);
      if (refusal === 'meaning') this.warnOfMeaning();
      barrier.leave(this.thread);
      // A message may wait long for a lock; many of them in one turn of the event loop do not make
      // a thread stuck.
      this.control.beat(this.thread);
    });
    barrier.leave(this.thread);
  }

  /** Opens a datagram and takes what is in it; returns why not. */
  private take(datagram: Uint8Array, now: number): Refusal | null {
    const { opener, counts } = this;
    const wallMs = Date.now();
    if (opener === null) return this.receiver.receive(datagram, now, coarseSeconds(wallMs), wallMs);
    const refusal = opener.open(datagram, now);
    if (refusal === null) return this.receiver.receive(opener.message, now, coarseSeconds(wallMs), wallMs);
    counts.row[counts.at.state_rx_messages]++;
    counts.row[counts.at.state_rx_bytes] += datagram.byteLength;
    counts.add(`state_rejected_${refusal}`, 1);
    return refusal;
  }

  /** Once: a member that is configured otherwise goes on sending. */
  private warnOfMeaning(): void {
    if (this.warnedOfMeaning) return;
    this.warnedOfMeaning = true;
    this.onAlarm(
      'a member has other state objects: its release, its middleboxes, one of their options that must be the same at all sites, its state section or cluster.slots differ from ours; its messages are refused, and counted as state_rejected_meaning',
    );
  }

  /**
   * Notes what goes on; messages are taken as they come. Returns how many came since the last
   * round.
   */
  doWork(): number {
    const { counts, transport } = this;
    const received = this.received;
    this.received = 0;
    this.receiver.tick(monotonicMs());
    counts.set('state_rx_reorder_bytes', this.receiver.bufferedBytes);
    counts.set('state_rx_socket_bytes', transport.bufferBytes);
    counts.add('state_rx_errors', transport.errors - this.transportErrors);
    this.transportErrors = transport.errors;
    return received;
  }

  /** Until main says stop. */
  run(): Promise<void> {
    return new Promise((resolve) => {
      const tick = (): void => {
        this.control.barrier.enter(this.thread);
        this.look();
        this.doWork();
        this.control.barrier.leave(this.thread);
        this.control.beat(this.thread);
        if (this.control.phase !== Phase.STOP) return;
        clearInterval(timer);
        resolve();
      };
      const timer = setInterval(tick, TICK_MS);
      tick();
    });
  }

  onClose(): Promise<void> {
    return this.transport.close();
  }
}

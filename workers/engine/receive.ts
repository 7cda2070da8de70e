/**
 * The receive thread: takes the other members' messages and applies their operations. Through the
 * acknowledgement board it tells the send thread what to acknowledge and what was acknowledged.
 *
 * It is a thin shell around `replication/receiving/receiver.ts`, and supplies the clock, the
 * sockets and the opening of sealed messages. It is driven by socket events. A slow timer checks
 * the phase and updates the heartbeat; so does every message. Between events the thread has left
 * the barrier (shm/barrier.ts).
 */

import { coarseSeconds } from '../../shm/clock.js';
import { type Control, Phase } from '../../shm/control.js';
import type { Metrics } from '../../shm/metrics.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { RejectTable } from '../../shm/reject-table.js';
import type { Agent } from '../base/agent.js';
import { monotonicMs } from '../base/monotonic.js';
import { Counts, REFUSALS, type Refusal } from '../replication/metrics.js';
import type { SkewLevel } from '../replication/receiving/clock-skew.js';
import { Receiver } from '../replication/receiving/receiver.js';
import { memberTableOf, messageBytes, type ReplicationSettings } from '../replication/settings.js';
import { Opener } from '../replication/wire/seal.js';
import { receiveTransport } from '../transport/open.js';
import type { ReceiveTransport } from '../transport/transport.js';

interface ReceiveAgentOptions {
  readonly settings: ReplicationSettings;
  readonly meaningHash: readonly [number, number];
  /** In the order of their ids, opened to write, without a log. */
  readonly objects: readonly StateObject[];
  readonly ackBoard: SharedArrayBuffer;
  /** From `createForeignLogs`. */
  readonly foreignLogs: SharedArrayBuffer;
  /** The member table. Absent: the members of the settings, unchanged. */
  readonly members?: SharedArrayBuffer;
  /** From `createSealBoard`. null: unsealed messages are accepted. */
  readonly sealBoard: SharedArrayBuffer | null;
  /** From `createRejectTable`. */
  readonly rejects: SharedArrayBuffer;
  readonly control: Control;
  readonly metrics: Metrics;
  /** The thread's slot: metrics row and heartbeat. */
  readonly thread: number;
  /** Called with errors that a state object's own code throws. Each is counted too. */
  readonly onError?: (error: unknown, object: number, origin: number) => void;
  /** Called if clocks are too far apart. See `ReceiverOptions`. */
  readonly onSkew?: (problem: string, level: SkewLevel) => void;
  /** Called with problems that need an operator. */
  readonly onAlarm?: (problem: string) => void;
  /** Called some times a second, for example to apply changed options. */
  readonly look?: () => void;
  /** Replaces the settings' transport, in tests. */
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
   * Opens the sockets and starts to take messages. If an address cannot be used, throws an error
   * that names it.
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
      // A message can wait long for a lock. The heartbeat per message keeps many such messages in
      // one turn of the event loop from looking like a stuck thread.
      this.control.beat(this.thread);
    });
    barrier.leave(this.thread);
  }

  /** Opens a datagram and takes its content. Returns the reason if it is refused. */
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

  /** Warns once, because a member with another configuration goes on sending. */
  private warnOfMeaning(): void {
    if (this.warnedOfMeaning) return;
    this.warnedOfMeaning = true;
    this.onAlarm(
      'a member has other state objects: its release, its middleboxes, one of their options that must be the same at all sites, its state section or cluster.slots differ from ours; its messages are refused, and counted as state_rejected_meaning',
    );
  }

  /**
   * Updates the metrics; messages are taken as they come. Returns how many came since the last
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

  /** Resolves when main stops the thread. */
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

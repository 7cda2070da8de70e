/**
 * The donor: answers members that ask for a snapshot, one at a time. Main thread.
 *
 * Nothing expensive is done for a connection that has not proved that it has the cluster's key: it
 * has a place for some seconds at most. Only a member that has proved itself gets a fork and the
 * state. While one snapshot is under way, other members are refused. They ask another donor, or ask
 * again.
 *
 * **Idle connections block no member.** A connection waits for its HELLO in one of `WAITING_MAX`
 * places. If all are taken, the one that has waited longest is closed. A member's HELLO is in its
 * first segment, so it leaves these places at once, however many other connections there are. A
 * valid HELLO moves its connection to one of `GREETED_MAX` other places. Only members can make a
 * HELLO, and a recorded one is refused while its nonce is remembered. Without a cluster key anybody
 * can make one.
 */

import { createServer, type Server, type Socket } from 'node:net';
import type { ClusterKey } from '../replication/wire/cluster-key.js';
import { type Agreed, encodeAgreed } from './agreed.js';
import type { Fork } from './fork.js';
import { FrameKind, FrameSealer } from './frames.js';
import {
  Asks,
  type Circle,
  checkProof,
  HELLO_BYTES,
  makeChallenge,
  PROOF_BYTES,
  readHello,
  sessionKey,
} from './handshake.js';
import { encodeHead, type SnapshotShape } from './head.js';
import { encodeOffer, type Offer, Stands } from './offer.js';
import { Progress } from './progress.js';
import { writeSnapshot } from './stream.js';
import { Connection } from './wire.js';

export interface SnapshotServerOptions {
  /** Where to listen. */
  readonly host: string;
  readonly port: number;
  /** This member's id. */
  readonly self: number;
  readonly circle: Circle;
  readonly shape: SnapshotShape;
  /** Takes a snapshot. Throws the reason if that is not possible now. */
  readonly fork: () => Fork;
  /** Why this instance cannot be a donor (it lacks state itself); null: it can. */
  readonly refuse?: () => string | null;
  /**
   * The answer to members that ask what state this instance has; absent: it has nothing to offer.
   */
  readonly offer?: () => Offer;
  /** The answer to members that ask what all have to agree on; absent: an empty answer. */
  readonly agreed?: Agreed;
  /** Called after that answer was sent to a member. */
  readonly onAgreedSent?: (member: number) => void;
  readonly log: (level: 'info' | 'warn', text: string) => void;
  /** A connection on which nothing moves for this time, in ms, is closed. */
  readonly idleMs?: number;
}

/** The most bytes of a reason for a refusal: it fits in one frame. */
const REASON_BYTES_MAX = 200;
/** The most connections that wait for a HELLO, and the most with a valid HELLO, until they end. */
const WAITING_MAX = 256;
const GREETED_MAX = 16;
/** HELLOs that are remembered, so that a recorded one takes no place. */
const NONCES_MAX = 4096;
/**
 * The most warnings that are logged in a period (ms) about connections that proved nothing. The
 * others are summed up.
 */
const WARNINGS_MAX = 8;
const WARNINGS_MS = 60_000;
const NOTHING_AGREED: Agreed = { release: '', options: new Map(), shapes: [] };
const HANDSHAKE_MS = 5_000;
const IDLE_MS = 15_000;

/** A HELLO, the member that sent it, and the key that it names. */
interface Greeting {
  readonly hello: Buffer;
  readonly client: number;
  readonly asks: Asks;
  readonly key: ClusterKey | null;
}

export class SnapshotServer {
  /**
   * Snapshots that were sent whole, refused to members, or broken off; and connections that proved
   * nothing.
   */
  readonly counts = { served: 0, refused: 0, failed: 0, rejected: 0 };
  private readonly options: SnapshotServerOptions;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  /** Connections without a HELLO, in order of arrival; the number of those with one. */
  private readonly waiting = new Set<Connection>();
  private greeted = 0;
  private readonly nonces = new Set<string>();
  private warnings = 0;
  private warningsSince = Number.NEGATIVE_INFINITY;
  /** Resolves when the current fork's child has ended; null: there is no fork. */
  private busy: Promise<void> | null = null;
  private underWay: Progress | null = null;
  private closing = false;

  private constructor(options: SnapshotServerOptions) {
    this.options = options;
    this.server = createServer({ noDelay: true }, (socket) => void this.serve(socket));
  }

  /** Starts listening. Throws the error of the listening socket if it cannot. */
  static listen(options: SnapshotServerOptions): Promise<SnapshotServer> {
    const server = new SnapshotServer(options);
    return new Promise((resolve, reject) => {
      server.server.once('error', reject);
      server.server.listen(options.port, options.host, () => {
        server.server.off('error', reject);
        server.server.on('error', (error) => options.log('warn', `snapshot server: ${error.message}`));
        resolve(server);
      });
    });
  }

  get port(): number {
    const address = this.server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** The snapshot under way, or null. */
  get progress(): Progress | null {
    return this.underWay;
  }

  /** Breaks off what is under way. Returns when all of it has ended. */
  async close(): Promise<void> {
    this.closing = true;
    for (const socket of this.sockets) socket.destroy();
    await new Promise((resolve) => this.server.close(resolve));
    await this.busy;
  }

  private async serve(socket: Socket): Promise<void> {
    const { idleMs = IDLE_MS } = this.options;
    const from = `${socket.remoteAddress}:${socket.remotePort}`;
    const connection = new Connection(socket, HANDSHAKE_MS);
    this.sockets.add(socket);
    const patience = setTimeout(() => connection.close(), HANDSHAKE_MS);
    try {
      const greeting = await this.greet(connection);
      this.greeted++;
      try {
        const key = await this.meet(connection, greeting);
        clearTimeout(patience);
        connection.setIdle(idleMs);
        const sealer = new FrameSealer(key);
        if (greeting.asks !== Asks.SNAPSHOT) await this.say(connection, sealer, greeting);
        else await this.answer(connection, greeting.client, sealer);
      } finally {
        this.greeted--;
      }
    } catch (error) {
      this.counts.rejected++;
      this.warnOf(from, error instanceof Error ? error.message : String(error));
    } finally {
      clearTimeout(patience);
      connection.close();
      this.sockets.delete(socket);
    }
  }

  /** Waits for a HELLO that only a member can have made and that was not used before. */
  private async greet(connection: Connection): Promise<Greeting> {
    const { circle, self } = this.options;
    const { waiting, nonces } = this;
    if (waiting.size >= WAITING_MAX) {
      const [oldest] = waiting;
      waiting.delete(oldest);
      oldest.close();
    }
    waiting.add(connection);
    try {
      const hello = await connection.take(HELLO_BYTES);
      const { client, asks, key, nonce } = readHello(circle, self, hello);
      if (nonces.has(nonce)) throw new Error('repeats a request that was made before');
      if (nonces.size >= NONCES_MAX) nonces.delete(nonces.values().next().value as string);
      nonces.add(nonce);
      if (this.greeted >= GREETED_MAX) throw new Error(`asks while ${GREETED_MAX} others do`);
      return { hello, client, asks, key };
    } finally {
      waiting.delete(connection);
    }
  }

  /** Lets the client prove that it is a member now. Returns the key for what it is sent. */
  private async meet(connection: Connection, { hello, key }: Greeting): Promise<Buffer | null> {
    const { circle } = this.options;
    const challenge = makeChallenge(circle, key, hello);
    await connection.put([challenge]);
    checkProof(circle, key, hello, challenge, await connection.take(PROOF_BYTES));
    return sessionKey(circle, key, hello, challenge);
  }

  /**
   * Logs why a connection that proved nothing was closed. A flood of such connections does not fill
   * the log.
   */
  private warnOf(from: string, why: string): void {
    const { log } = this.options;
    const now = performance.now();
    if (now - this.warningsSince > WARNINGS_MS) {
      if (this.warnings > WARNINGS_MAX)
        log('warn', `snapshot asked for by ${this.warnings - WARNINGS_MAX} more connections that proved nothing`);
      this.warnings = 0;
      this.warningsSince = now;
    }
    if (++this.warnings <= WARNINGS_MAX) log('warn', `snapshot asked for from ${from}: it ${why}`);
  }

  /** Answers requests that need no fork: for an offer, or for what members have to agree on. */
  private async say(connection: Connection, sealer: FrameSealer, { asks, client }: Greeting): Promise<void> {
    const { offer, agreed = NOTHING_AGREED, onAgreedSent } = this.options;
    const answer =
      asks === Asks.AGREED ? encodeAgreed(agreed) : encodeOffer(offer?.() ?? { stands: Stands.JOINING, savedMs: 0 });
    await connection.put(sealer.seal(FrameKind.DATA, answer)).catch(() => {});
    await connection.put(sealer.seal(FrameKind.END, new Uint8Array(0))).catch(() => {});
    await connection.finish();
    if (asks === Asks.AGREED) onAgreedSent?.(client);
  }

  /** Answers a request for a snapshot. It never throws: failures are logged and counted. */
  private async answer(connection: Connection, member: number, sealer: FrameSealer): Promise<void> {
    const { log } = this.options;
    let fork: Fork | null = null;
    let done = (): void => {};
    try {
      const reason = this.closing ? 'stopping' : this.busy !== null ? 'busy' : (this.options.refuse?.() ?? null);
      if (reason === null) {
        fork = this.options.fork();
        this.busy = new Promise((resolve) => {
          done = resolve;
        });
      } else await this.refuse(connection, member, sealer, reason);
    } catch (error) {
      await this.refuse(connection, member, sealer, error instanceof Error ? error.message : String(error));
    }
    if (fork === null) return;
    try {
      const { pauseUs, gatherUs, forkUs } = fork;
      log(
        'info',
        `snapshot for member ${member}: all stood still for ${pauseUs.toFixed(0)} µs (${gatherUs.toFixed(0)} to gather, ${forkUs.toFixed(0)} to fork)`,
      );
      await this.send(connection, member, sealer, fork);
      this.counts.served++;
      log('info', `snapshot for member ${member} sent: ${this.underWay}`);
    } catch (error) {
      this.counts.failed++;
      log('warn', `snapshot for member ${member} broke off: ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      await fork.done();
      this.underWay = null;
      this.busy = null;
      done();
    }
  }

  private async send(connection: Connection, member: number, sealer: FrameSealer, { head, copy }: Fork): Promise<void> {
    const { shape, log } = this.options;
    const start = encodeHead(shape, head);
    const progress = new Progress(member, start.length + copy.bytes, (text) =>
      log('info', `snapshot for member ${member}: ${text}`),
    );
    this.underWay = progress;
    await writeSnapshot(
      (parts) => connection.put(parts),
      sealer,
      start,
      copy,
      (bytes) => progress.add(bytes),
    );
    await connection.finish();
  }

  private async refuse(connection: Connection, member: number, sealer: FrameSealer, reason: string): Promise<void> {
    this.counts.refused++;
    this.options.log('info', `snapshot refused to member ${member}: ${reason}`);
    const bytes = Buffer.from(reason).subarray(0, REASON_BYTES_MAX);
    await connection.put(sealer.seal(FrameKind.REFUSAL, bytes)).catch(() => {});
    await connection.finish();
  }
}

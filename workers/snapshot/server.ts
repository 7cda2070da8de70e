/**
 * The donor: answers members that ask for a snapshot, one at a time. Main thread.
 *
 * Nothing expensive is done for a connection that has not proved to have the cluster's key: it has
 * a place for some seconds at most. Only a member that has proved itself gets a fork and the state.
 * While one snapshot is under way, other members are told so, and ask another donor, or again.
 *
 * **Idle connections block no member.** A connection waits for its HELLO in one of `WAITING_MAX`
 * places. If all are taken, the one that has waited longest is closed. A member's HELLO is in its
 * first segment, so it leaves these places at once, however many other connections there are. A
 * right HELLO gets one of `GREETED_MAX` places of their own. Only members can make a HELLO, and a
 * recorded one is refused as long as its nonce is remembered. Without a cluster key anybody can
 * make one.
 */

import { createServer, type Server, type Socket } from 'node:net';
import type { ClusterKey } from '../replication/cluster-key.js';
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
  /** Our member id. */
  readonly self: number;
  readonly circle: Circle;
  readonly shape: SnapshotShape;
  /** Takes a snapshot; throws with the reason where there can be none now. */
  readonly fork: () => Fork;
  /** Why we cannot be a donor (we lack state ourselves); null: we can. */
  readonly refuse?: () => string | null;
  /** What we say to members that ask what state we have; absent: nothing to offer. */
  readonly offer?: () => Offer;
  /** What we say to members that ask what all have to agree on; absent: nothing. */
  readonly agreed?: Agreed;
  /** A member was told that. */
  readonly onAgreedTold?: (member: number) => void;
  readonly log: (level: 'info' | 'warn', text: string) => void;
  /** A connection on which nothing moves for so long is given up. */
  readonly idleMs?: number;
}

/** What an asker is told it was refused for: short enough for one frame. */
const REASON_BYTES_MAX = 200;
/** Connections that wait for a HELLO; and those whose HELLO was right, until they end. */
const WAITING_MAX = 256;
const GREETED_MAX = 16;
/** HELLOs that are remembered, so that a recorded one takes no place. */
const NONCES_MAX = 4096;
/**
 * So many warnings about connections that proved nothing are logged in a period; the rest is summed
 * up.
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
   * Snapshots sent whole, refused to members, broken off on the way; connections that proved
   * nothing.
   */
  readonly counts = { served: 0, refused: 0, failed: 0, rejected: 0 };
  private readonly options: SnapshotServerOptions;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  /** Connections without a HELLO, in the order in which they came; the number of those with one. */
  private readonly waiting = new Set<Connection>();
  private greeted = 0;
  private readonly nonces = new Set<string>();
  private warnings = 0;
  private warningsSince = Number.NEGATIVE_INFINITY;
  /** The fork under way, from its snapshot on, until its child is gone. */
  private busy: Promise<void> | null = null;
  private underWay: Progress | null = null;
  private closing = false;

  private constructor(options: SnapshotServerOptions) {
    this.options = options;
    this.server = createServer({ noDelay: true }, (socket) => void this.serve(socket));
  }

  /** Throws an error that names the address that cannot be listened on. */
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

  /** The snapshot under way, if any. */
  get progress(): Progress | null {
    return this.underWay;
  }

  /** Breaks off what is under way; returns when nothing of it is left. */
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

  /** Waits for a HELLO that only a member can have made, and that was not used before. */
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

  /** Lets the client prove that it is a member now; returns the key of what it is sent. */
  private async meet(connection: Connection, { hello, key }: Greeting): Promise<Buffer | null> {
    const { circle } = this.options;
    const challenge = makeChallenge(circle, key, hello);
    await connection.put([challenge]);
    checkProof(circle, key, hello, challenge, await connection.take(PROOF_BYTES));
    return sessionKey(circle, key, hello, challenge);
  }

  /**
   * Logs why a connection was closed that proved nothing. A flood of them does not fill the log.
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

  /** Answers what takes no fork: an offer, or what members have to agree on. */
  private async say(connection: Connection, sealer: FrameSealer, { asks, client }: Greeting): Promise<void> {
    const { offer, agreed = NOTHING_AGREED, onAgreedTold } = this.options;
    const answer =
      asks === Asks.AGREED ? encodeAgreed(agreed) : encodeOffer(offer?.() ?? { stands: Stands.JOINING, savedMs: 0 });
    await connection.put(sealer.seal(FrameKind.DATA, answer)).catch(() => {});
    await connection.put(sealer.seal(FrameKind.END, new Uint8Array(0))).catch(() => {});
    await connection.finish();
    if (asks === Asks.AGREED) onAgreedTold?.(client);
  }

  /** Never throws: what fails from here on is told and counted. */
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

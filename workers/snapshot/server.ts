/**
 * The donor: answers members that ask for a snapshot, one at a time. Main thread.
 *
 * What costs something comes last: whoever connects is given some seconds and 112 bytes; a fork and the state are for who has
 * proved to have the cluster's key. While one snapshot is under way others are told so, and ask another donor, or again.
 */

import { createServer, type Server, type Socket } from 'node:net';
import type { Fork } from './fork.js';
import { FRAME_BYTES_MAX, FrameKind, FrameSealer } from './frames.js';
import {
  type Circle,
  checkProof,
  HELLO_BYTES,
  makeChallenge,
  PROOF_BYTES,
  readHello,
  sessionKey,
} from './handshake.js';
import { encodeHead, type SnapshotShape } from './head.js';
import { Progress } from './progress.js';
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
  readonly log: (level: 'info' | 'warn', text: string) => void;
  /** A connection on which nothing moves for so long is given up. */
  readonly idleMs?: number;
}

/** What an asker is told it was refused for: short enough for one frame. */
const REASON_BYTES_MAX = 200;
const CONNECTIONS_MAX = 16;
const HANDSHAKE_MS = 5_000;
const IDLE_MS = 15_000;

export class SnapshotServer {
  /** Snapshots sent whole, refused to members, broken off on the way; connections that proved nothing. */
  readonly counts = { served: 0, refused: 0, failed: 0, rejected: 0 };
  private readonly options: SnapshotServerOptions;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();
  /** The fork under way, from its snapshot on, until its child is gone. */
  private busy: Promise<void> | null = null;
  private underWay: Progress | null = null;
  private closing = false;

  private constructor(options: SnapshotServerOptions) {
    this.options = options;
    this.server = createServer({ noDelay: true }, (socket) => void this.serve(socket));
    this.server.maxConnections = CONNECTIONS_MAX;
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
    const { log, idleMs = IDLE_MS } = this.options;
    const from = `${socket.remoteAddress}:${socket.remotePort}`;
    const connection = new Connection(socket, HANDSHAKE_MS);
    this.sockets.add(socket);
    try {
      const asker = await this.meet(connection);
      connection.setIdle(idleMs);
      await this.answer(connection, asker.client, new FrameSealer(asker.key));
    } catch (error) {
      this.counts.rejected++;
      log('warn', `snapshot asked for from ${from}: it ${error instanceof Error ? error.message : String(error)}`);
    } finally {
      connection.close();
      this.sockets.delete(socket);
    }
  }

  /** Who asks, and the key of what it is sent; it has proved that it is a member. */
  private async meet(connection: Connection): Promise<{ readonly client: number; readonly key: Buffer | null }> {
    const { circle, self } = this.options;
    const patience = setTimeout(() => connection.close(), HANDSHAKE_MS);
    try {
      const hello = await connection.take(HELLO_BYTES);
      const { client, key } = readHello(circle, self, hello);
      const challenge = makeChallenge(circle, key, hello);
      await connection.put([challenge]);
      checkProof(circle, key, hello, challenge, await connection.take(PROOF_BYTES));
      return { client, key: sessionKey(circle, key, hello, challenge) };
    } finally {
      clearTimeout(patience);
    }
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
    for (let at = 0; at < start.length; at += FRAME_BYTES_MAX) {
      const piece = start.subarray(at, at + FRAME_BYTES_MAX);
      await connection.put(sealer.seal(FrameKind.DATA, piece));
      progress.add(piece.length);
    }
    for await (const piece of copy.pieces()) {
      await connection.put(sealer.seal(FrameKind.DATA, piece));
      progress.add(piece.length);
    }
    await connection.put(sealer.seal(FrameKind.END, new Uint8Array(0)));
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

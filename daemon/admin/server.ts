/**
 * The admin socket: a Unix socket that its owner and group may use. protocol.ts has the protocol.
 */

import { chmodSync, existsSync, lstatSync, type Stats, unlinkSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import type { AdminSource } from '../views/source.js';
import type { Command } from './command.js';
import { type AdminLog, Connection, type ConnectionOptions, farewell } from './connection.js';
import { errorLine } from './protocol.js';

export interface AdminServerOptions {
  readonly commands: readonly Command[];
  readonly log?: AdminLog;
  readonly connections?: number;
  readonly idle_ms?: number;
  readonly stall_ms?: number;
}

const CONNECTIONS_MAX = 32;
const IDLE_MS = 60_000;
const STALL_MS = 30_000;
/** Time that answers in progress may take when the server closes. */
const CLOSE_MS = 2000;

const MODE = 0o660;

const SILENT: AdminLog = { debug: () => undefined, error: () => undefined };

export class AdminServer {
  readonly path: string;
  private readonly server: Server;
  private readonly connections = new Set<Connection>();

  /** Listens at `path`. Rejects with the cause and a remedy. */
  static async listen(path: string, source: AdminSource, options: AdminServerOptions): Promise<AdminServer> {
    await removeStaleSocket(path);
    const admin = new AdminServer(path, source, options);
    await admin.open();
    return admin;
  }

  private constructor(path: string, source: AdminSource, options: AdminServerOptions) {
    this.path = path;
    const connection: ConnectionOptions = {
      source,
      commands: options.commands,
      log: options.log ?? SILENT,
      idle_ms: options.idle_ms ?? IDLE_MS,
      stall_ms: options.stall_ms ?? STALL_MS,
    };
    const max = options.connections ?? CONNECTIONS_MAX;
    // allowHalfOpen, because `echo status | socat` ends its side before it reads the answer.
    this.server = createServer({ allowHalfOpen: true }, (socket) => this.accept(socket, connection, max));
  }

  private accept(socket: Socket, options: ConnectionOptions, max: number): void {
    if (this.connections.size >= max) {
      farewell(socket, errorLine('busy', `${max} clients are connected already; close one`));
      return;
    }
    const connection = new Connection(socket, options);
    this.connections.add(connection);
    void connection.closed.then(() => this.connections.delete(connection));
  }

  private open(): Promise<void> {
    const { server, path } = this;
    return new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => reject(new Error(whyNot(path, error), { cause: error })));
      // `listen` creates the socket before it returns, so the socket has this mode from the start.
      const umask = process.umask(0o777 & ~MODE);
      try {
        server.listen(path, () => {
          server.removeAllListeners('error');
          // Accepting can fail for lack of file descriptors. The instance continues.
          server.on('error', () => undefined);
          resolve();
        });
      } finally {
        process.umask(umask);
      }
    }).then(() => chmodSync(path, MODE));
  }

  /** Stops listening and removes the socket. Answers in progress have `CLOSE_MS` to finish. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.server.close(() => resolve()));
    for (const connection of this.connections) connection.leave();
    const cut = setTimeout(() => {
      for (const connection of this.connections) connection.destroy();
    }, CLOSE_MS);
    await closed;
    clearTimeout(cut);
  }
}

/**
 * Removes a socket that nobody listens at: an instance that was killed left it. A socket that
 * answers belongs to a running instance, and is an error. (Two instances that start at the same
 * moment on one stale socket could both find it stale. The service manager starts only one.)
 */
async function removeStaleSocket(path: string): Promise<void> {
  let found: Stats;
  try {
    found = lstatSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw new Error(whyNot(path, error as NodeJS.ErrnoException), { cause: error });
  }
  if (!found.isSocket()) {
    throw new Error(`admin socket ${path}: something else is there; remove it, or choose another admin.socket`);
  }
  const code = await probe(path);
  if (code === null)
    throw new Error(`admin socket ${path}: another instance is using it; give each its own admin.socket`);
  if (code !== 'ECONNREFUSED' && code !== 'ENOENT') throw new Error(`admin socket ${path}: cannot be tried: ${code}`);
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw new Error(whyNot(path, error as NodeJS.ErrnoException), { cause: error });
    }
  }
}

/** Returns `null` if somebody listens, otherwise the error code of the attempt. */
function probe(path: string): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(null);
    });
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

function whyNot(path: string, error: NodeJS.ErrnoException): string {
  const folder = dirname(path);
  const hints: Readonly<Record<string, string>> = {
    ENOENT: `the folder ${folder} does not exist; create it (under systemd: RuntimeDirectory=), or choose another admin.socket`,
    ENOTDIR: `${folder} is not a folder`,
    EACCES: `this user may not create it in ${folder}; change the folder's owner, or choose another admin.socket`,
    EROFS: `${folder} cannot be written to`,
    EADDRINUSE: 'another instance took it at this moment; give each its own admin.socket',
  };
  // libuv reports a missing folder as EACCES when it binds a socket.
  const code = error.code === 'EACCES' && !existsSync(folder) ? 'ENOENT' : error.code;
  return `admin socket ${path}: ${hints[code ?? ''] ?? error.message}`;
}

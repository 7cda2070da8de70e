/**
 * One client of the admin socket. The connection answers commands one after the other, and reads
 * none while it answers one. So a client can make the instance buffer at most one line and one
 * piece of an answer.
 */

import type { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { FailedError, UsageError } from '../base/command-errors.js';
import type { AdminSource } from '../views/source.js';
import { render } from './answer.js';
import { type Command, type ParsedLine, parseLine } from './command.js';
import { type ErrorCode, errorLine, escapeLine, okLine, REQUEST_BYTES_MAX } from './protocol.js';

export interface ConnectionOptions {
  readonly source: AdminSource;
  readonly commands: readonly Command[];
  /** A client that sends no whole command for this time is disconnected. */
  readonly idle_ms: number;
  /** A client that reads nothing of its answer for this time is disconnected. */
  readonly stall_ms: number;
  /** Receives every command before it runs, and errors of the instance itself. */
  readonly log: AdminLog;
}

export interface AdminLog {
  debug(message: string): void;
  error(error: unknown, message: string): void;
}

/** Time that the main thread may work on an answer before it does other work. */
const SLICE_MS = 2;
/** Number of lines between two readings of the clock. */
const LINES_PER_LOOK = 32;
/** Number of characters of an answer that are collected before they are written to the socket. */
const PIECE_CHARACTERS = 16 * 1024;
/**
 * A disconnected client may finish what it is writing; otherwise it might never read the reason.
 * `FAREWELL_MS` and `FAREWELL_BYTES` limit that.
 */
const FAREWELL_MS = 500;
const FAREWELL_BYTES = 8 * 1024 * 1024;

const LINE_FEED = 0x0a;

export class Connection {
  /** Resolves once the socket is closed. */
  readonly closed: Promise<void>;
  private readonly socket: Socket;
  private readonly options: ConnectionOptions;
  private timer: NodeJS.Timeout | undefined;
  /** Received bytes of lines that are not yet answered. */
  private pending: Buffer = Buffer.alloc(0);
  private ended = false;
  private answering = false;
  private leaving = false;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.socket = socket;
    this.options = options;
    this.closed = new Promise((resolve) => socket.once('close', () => resolve()));
    this.awaitCommand();
    // A client that disconnects is not an error of the instance. 'close' follows.
    socket.on('error', () => undefined);
    socket.once('close', () => clearTimeout(this.timer));
    socket.on('data', (bytes: Buffer) => {
      this.pending = this.pending.length === 0 ? bytes : Buffer.concat([this.pending, bytes]);
      void this.work();
    });
    socket.once('end', () => {
      this.ended = true;
      void this.work();
    });
  }

  /**
   * Disconnects the client: at once if no command is being answered, otherwise after the answer.
   */
  leave(): void {
    if (this.answering) this.leaving = true;
    else this.close('');
  }

  destroy(): void {
    this.socket.destroy();
  }

  private async work(): Promise<void> {
    if (this.answering) return;
    this.answering = true;
    this.socket.pause();
    try {
      for (let line = this.takeLine(); line !== undefined && this.writable(); line = this.takeLine()) {
        if (line.trim() === '') continue;
        // Only whole commands count, so a client cannot keep the connection with single bytes.
        clearTimeout(this.timer);
        await this.answer(line);
        this.awaitCommand();
        if (this.leaving) break;
      }
    } finally {
      this.answering = false;
    }
    this.afterWork();
  }

  private afterWork(): void {
    if (!this.writable()) this.socket.destroy();
    else if (this.leaving) this.close('');
    else if (this.pending.length > REQUEST_BYTES_MAX) {
      this.dismiss('too_long', `a command has at most ${REQUEST_BYTES_MAX} bytes`);
    } else if (this.ended) this.socket.end();
    else this.socket.resume();
  }

  private awaitCommand(): void {
    if (!this.writable()) return;
    this.timer = setTimeout(() => this.dismiss('idle', 'no command came'), this.options.idle_ms).unref();
  }

  private writable(): boolean {
    return this.socket.writable && !this.socket.destroyed;
  }

  /** Returns the next whole line. At the end of input, the last line needs no line feed. */
  private takeLine(): string | undefined {
    let end = this.pending.indexOf(LINE_FEED);
    if (end < 0 && this.ended && this.pending.length > 0) end = this.pending.length;
    if (end < 0 || end > REQUEST_BYTES_MAX) return undefined;
    const line = this.pending.toString('utf8', 0, end);
    this.pending = this.pending.subarray(end + 1);
    return line;
  }

  private async answer(line: string): Promise<void> {
    let end = '';
    try {
      end = await this.run(parseLine(line, this.options.commands));
    } catch (error) {
      end = errorLine(error instanceof UsageError ? 'usage' : 'failed', messageOf(error));
      if (!(error instanceof UsageError || error instanceof FailedError)) {
        this.options.log.error(error, 'an admin command failed');
      }
    }
    await this.write(end);
  }

  /** Returns the line that ends the answer. */
  private async run({ command, words, format }: ParsedLine): Promise<string> {
    const { source, commands, log } = this.options;
    log.debug(`admin command: ${[command.name, ...words].join(' ').slice(0, 200)}`);
    const answer = await command.run({ source, words, commands });
    let piece = '';
    let lines = 0;
    let until = performance.now() + SLICE_MS;
    for (const line of render(answer, format)) {
      if (line !== null) piece += `${escapeLine(line)}\n`;
      lines++;
      const pause = lines % LINES_PER_LOOK === 0 && performance.now() > until;
      if (piece.length < PIECE_CHARACTERS && !pause) continue;
      if (piece !== '') await this.write(piece);
      if (!this.writable()) return '';
      piece = '';
      if (pause) {
        await nextTurn();
        until = performance.now() + SLICE_MS;
      }
    }
    if (piece !== '') await this.write(piece);
    return okLine(answer.kind === 'record' ? answer.state : undefined);
  }

  /** Resolves when more can be written, or when the socket is closed. */
  private async write(text: string): Promise<void> {
    const { socket } = this;
    if (!this.writable() || socket.write(text)) return;
    await new Promise<void>((resolve) => {
      const stalled = setTimeout(() => socket.destroy(), this.options.stall_ms).unref();
      const done = (): void => {
        clearTimeout(stalled);
        socket.off('drain', done);
        socket.off('close', done);
        resolve();
      };
      socket.on('drain', done);
      socket.on('close', done);
    });
  }

  /** Sends the reason and closes the connection. */
  private dismiss(code: ErrorCode, message: string): void {
    this.close(errorLine(code, message));
  }

  private close(lastLine: string): void {
    if (!this.writable()) {
      this.socket.destroy();
      return;
    }
    clearTimeout(this.timer);
    this.pending = Buffer.alloc(0);
    farewell(this.socket, lastLine);
  }
}

/**
 * Sends a last line and closes the connection. Discards what still arrives, within the limits
 * above.
 */
export function farewell(socket: Socket, line: string): void {
  const giveUp = setTimeout(() => socket.destroy(), FAREWELL_MS).unref();
  const limit = socket.bytesRead + FAREWELL_BYTES;
  socket.removeAllListeners('data');
  socket.removeAllListeners('end');
  socket.on('error', () => undefined);
  socket.on('data', () => {
    if (socket.bytesRead > limit) socket.destroy();
  });
  socket.once('end', () => socket.destroySoon());
  socket.once('close', () => clearTimeout(giveUp));
  socket.end(line);
  socket.resume();
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

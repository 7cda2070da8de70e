/**
 * The client side of the admin socket. It sends one command and yields the lines of the answer as
 * they arrive.
 */

import { connect, type Socket } from 'node:net';
import type { LifecycleState } from '../lifecycle/lifecycle.js';
import { readLine } from './protocol.js';

/** The instance understood the command and refused it, or the command failed. */
export class CommandError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** No instance can be reached; `cause` has the error's code. */
export class UnreachableError extends Error {}

interface AskOptions {
  /** Fails if the instance sends nothing for this time. Absent: no limit. */
  readonly silence_ms?: number | undefined;
  /** Called with the state of the instance, if the answer reports it. */
  readonly onState?: (state: LifecycleState) => void;
}

/**
 * Yields the lines of one answer. Throws `CommandError` or `UnreachableError`. The caller may leave
 * the loop early.
 */
export async function* ask(path: string, command: string, options: AskOptions = {}): AsyncGenerator<string> {
  const socket = await open(path);
  try {
    if (options.silence_ms !== undefined) {
      socket.setTimeout(options.silence_ms, () => socket.destroy(new Error('it does not answer')));
    }
    socket.write(`${command.replaceAll('\n', ' ')}\n`);
    for await (const line of lines(socket)) {
      const received = readLine(line);
      if (received.kind === 'ok') {
        if (received.state !== null) options.onState?.(received.state);
        return;
      }
      if (received.kind === 'error') throw new CommandError(received.code, received.message);
      yield received.text;
    }
    throw new UnreachableError('the instance closed the connection in the middle of its answer');
  } catch (error) {
    if (error instanceof CommandError || error instanceof UnreachableError) throw error;
    throw new UnreachableError((error as Error).message, { cause: error });
  } finally {
    socket.destroy();
  }
}

/** Returns all lines of an answer. */
export async function askAll(path: string, command: string, options: AskOptions = {}): Promise<string[]> {
  const answer: string[] = [];
  for await (const line of ask(path, command, options)) answer.push(line);
  return answer;
}

/** Returns the documents of a JSON answer: one per row of a table. */
export async function askJson(path: string, command: string, options: AskOptions = {}): Promise<unknown[]> {
  const answer = await askAll(path, `${command} -o json`, options);
  return answer.map((line) => JSON.parse(line));
}

function open(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      resolve(socket);
    });
    socket.once('error', (error) => reject(new UnreachableError(error.message, { cause: error })));
  });
}

async function* lines(socket: Socket): AsyncGenerator<string> {
  let rest = '';
  socket.setEncoding('utf8');
  for await (const piece of socket as AsyncIterable<string>) {
    const parts = (rest + piece).split('\n');
    rest = parts.pop() ?? '';
    yield* parts;
  }
}

/** Asks an instance through its admin socket, without a client program of its own for every question. */

import { connect } from 'node:net';
import { readLine } from '../../daemon/admin/protocol.js';

const ANSWER_MS_MAX = 10_000;

/** The documents one command answers in JSON, a row or a record each. Rejects with what the instance says is wrong. */
export function ask<T>(socketPath: string, command: string): Promise<T[]> {
  return new Promise((resolve, reject) => {
    const socket = connect(socketPath);
    const documents: T[] = [];
    let partial = '';
    const end = (error: Error | null): void => {
      socket.destroy();
      if (error === null) resolve(documents);
      else reject(error);
    };
    socket.setEncoding('utf8');
    socket.setTimeout(ANSWER_MS_MAX, () => end(new Error(`${command}: no answer in ${ANSWER_MS_MAX} ms`)));
    socket.on('connect', () => socket.write(`${command} -o json\n`));
    socket.on('error', (error) => end(error));
    socket.on('close', () => end(new Error(`${command}: hung up before the end of the answer`)));
    socket.on('data', (text: string) => {
      const lines = (partial + text).split('\n');
      partial = lines.pop() ?? '';
      for (const line of lines) {
        const received = readLine(line);
        if (received.kind === 'ok') end(null);
        else if (received.kind === 'error') end(new Error(`${command}: ${received.message}`));
        else documents.push(JSON.parse(received.text) as T);
      }
    });
  });
}

/**
 * The protocol of the admin socket: lines of text, from a program or by hand (`socat -
 * UNIX-CONNECT:SOCKET`).
 *
 *     request  = command *( SP word ) LF             for example: show flows proto=tcp -o json
 *     answer   = *( line LF ) end LF
 *     end      = "OK" [ SP state ] / "ERR" SP code SP message
 *
 * Every request that is not blank has one answer. Answers come in the order of the requests. A
 * client may send requests without waiting for answers. Only `end` begins with `OK` or `ERR`. A
 * content line that begins with `OK`, `ERR` or a space is sent with one extra leading space, which
 * the client removes. An answer may end in `ERR` after some lines.
 *
 * `state` ends the answer of a command whose exit code reports the state of the instance
 * (lifecycle.ts).
 *
 * Codes: `usage` the command was not understood; `failed` the command did not do what it asks for;
 * `too_long`, `busy` and `idle` the connection is closed.
 */

import { LIFECYCLE_STATES, type LifecycleState } from '../lifecycle/lifecycle.js';

export const REQUEST_BYTES_MAX = 64 * 1024;

export type ErrorCode = 'usage' | 'failed' | 'too_long' | 'busy' | 'idle';

export const PROTOCOL_HELP = [
  '-o json after a command gives JSON, one document a line. An answer ends with a line OK or ERR CODE MESSAGE.',
];

/** The end of a successful answer. */
export function okLine(state?: LifecycleState): string {
  return state === undefined ? 'OK\n' : `OK ${state}\n`;
}

/** The end of a failed answer. */
export function errorLine(code: ErrorCode, message: string): string {
  return `ERR ${code} ${message.replace(/\s*[\r\n]+\s*/g, ' ')}\n`;
}

/** Escapes a content line for sending. */
export function escapeLine(line: string): string {
  return /^(?: |OK|ERR)/.test(line) ? ` ${line}` : line;
}

type Received =
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'ok'; readonly state: LifecycleState | null }
  | { readonly kind: 'error'; readonly code: string; readonly message: string };

/** Parses a received line, without its line end. */
export function readLine(line: string): Received {
  if (line === 'OK' || line.startsWith('OK ')) {
    const state = LIFECYCLE_STATES.find((candidate) => line === `OK ${candidate}`) ?? null;
    return { kind: 'ok', state };
  }
  const error = /^ERR (\S+) ?(.*)$/.exec(line);
  if (error !== null) return { kind: 'error', code: error[1], message: error[2] };
  return { kind: 'line', text: line.startsWith(' ') ? line.slice(1) : line };
}

/**
 * The daemon's log, on standard error: lines for people on a terminal, lines with a priority for
 * the journal, JSON for everything else. Only the main thread writes to it; other threads hand
 * theirs over (shm/events.ts).
 */

import { fstatSync } from 'node:fs';
import { isatty } from 'node:tty';
import { type Logger, pino } from 'pino';

export type Log = Logger;

export const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export type LogForm = 'text' | 'journal' | 'json';

const STDERR = 2;

/**
 * Messages less important than `level` are left out. `sink` takes whole lines, by default standard
 * error.
 */
export function createLog(level: LogLevel, form: LogForm = formOf(STDERR), sink: LogSink = standardError()): Log {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  if (form === 'json') return pino(options, sink);
  const write = form === 'text' ? textLine : journalLine;
  return pino(options, { write: (line: string) => sink.write(write(JSON.parse(line))) });
}

export interface LogSink {
  write(line: string): void;
}

/**
 * Written at once and not in the background: the last line before an end is the one that matters.
 */
function standardError(): LogSink {
  const destination = pino.destination({ fd: STDERR, sync: true });
  // Nobody reads it any more; there is nowhere to say so, and no reason to stop.
  destination.on('error', () => undefined);
  return { write: (line) => void destination.write(line) };
}

/**
 * systemd says in JOURNAL_STREAM (man 5 systemd.exec) which file is its own; standard error may
 * have been redirected.
 */
export function formOf(descriptor: number, journal = process.env['JOURNAL_STREAM']): LogForm {
  if (isatty(descriptor)) return 'text';
  if (journal === undefined) return 'json';
  const { dev, ino } = fstatSync(descriptor);
  return journal === `${dev}:${ino}` ? 'journal' : 'json';
}

interface Entry {
  readonly level: LogLevel;
  readonly time: string;
  readonly msg?: string;
  readonly err?: { readonly message?: string };
}

/** `2024-06-01 12:00:00.123 warn  message`. */
function textLine(entry: Entry): string {
  const time = entry.time.replace('T', ' ').replace('Z', '');
  return `${time} ${entry.level.padEnd(5)} ${textOf(entry)}\n`;
}

/**
 * Priorities of syslog, as the journal reads them at the start of a line (man 3 sd-daemon). The
 * time is its own.
 */
const PRIORITIES: Readonly<Record<LogLevel, number>> = { trace: 7, debug: 7, info: 6, warn: 4, error: 3, fatal: 2 };

function journalLine(entry: Entry): string {
  return `<${PRIORITIES[entry.level]}>${textOf(entry)}\n`;
}

/** The message, the error, and whatever else came with it, on one line. */
function textOf({ level: _level, time: _time, msg, err, ...more }: Entry): string {
  const parts = [msg, err?.message].filter((part) => part !== undefined && part !== '');
  const extra = Object.entries(more).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  const text = [[...new Set(parts)].join(': '), ...extra].join(' ').trim();
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a message must not move the cursor or forge a line
  return text.replace(/\s*[\r\n]+\s*/g, ' | ').replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

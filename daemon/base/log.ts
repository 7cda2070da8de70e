/**
 * The daemon's log on standard error: text lines on a terminal, lines with a priority for the
 * journal, otherwise JSON. Only the main thread writes to it. Other threads pass their messages to
 * it (shm/events.ts).
 */

import { fstatSync } from 'node:fs';
import { isatty } from 'node:tty';
import { type Logger, pino } from 'pino';

export type Log = Logger;

const LOG_LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export type LogForm = 'text' | 'journal' | 'json';

const STDERR = 2;

/**
 * Leaves out messages less important than `level`. `sink` takes whole lines; the default is
 * standard error.
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

interface LogSink {
  write(line: string): void;
}

/** Writes synchronously, because the last line before the process ends matters most. */
function standardError(): LogSink {
  const destination = pino.destination({ fd: STDERR, sync: true });
  // Nobody reads standard error any more. That is no reason to stop, and cannot be reported.
  destination.on('error', () => undefined);
  return { write: (line) => void destination.write(line) };
}

/**
 * systemd sets JOURNAL_STREAM (man 5 systemd.exec) to the device and inode of the journal's stream.
 * Standard error may have been redirected elsewhere.
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
 * Syslog priorities, which the journal reads at the start of a line (man 3 sd-daemon). The journal
 * adds the time itself.
 */
const PRIORITIES: Readonly<Record<LogLevel, number>> = { trace: 7, debug: 7, info: 6, warn: 4, error: 3, fatal: 2 };

function journalLine(entry: Entry): string {
  return `<${PRIORITIES[entry.level]}>${textOf(entry)}\n`;
}

/** The message, the error and all other fields, on one line. */
function textOf({ level: _level, time: _time, msg, err, ...more }: Entry): string {
  const parts = [msg, err?.message].filter((part) => part !== undefined && part !== '');
  const extra = Object.entries(more).map(([key, value]) => `${key}=${JSON.stringify(value)}`);
  const text = [[...new Set(parts)].join(': '), ...extra].join(' ').trim();
  // biome-ignore lint/suspicious/noControlCharactersInRegex: a message must not move the cursor or forge a line
  return text.replace(/\s*[\r\n]+\s*/g, ' | ').replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

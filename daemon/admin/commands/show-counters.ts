import { suggestion } from '../../../conf/suggest.js';
import { FailedError, UsageError } from '../../base/command-errors.js';
import type { CounterRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import type { Command } from '../command.js';

const COLUMNS: readonly Column<CounterRow>[] = [
  { title: 'COUNTER', cell: (counter) => counter.name },
  { title: 'TOTAL', cell: (counter) => counter.total, right: true },
  { title: 'MEANING', cell: (counter) => counter.help },
];

/**
 * Tests whether a name contains the pattern. A pattern with `*` must match the whole name. Patterns
 * are not regular expressions, because a regular expression can take unbounded time.
 */
function matches(name: string, pattern: string): boolean {
  if (!pattern.includes('*')) return name.includes(pattern);
  const parts = pattern.split('*');
  const first = parts[0];
  const last = parts[parts.length - 1];
  if (name.length < first.length + last.length || !name.startsWith(first) || !name.endsWith(last)) return false;
  let at = first.length;
  for (const part of parts.slice(1, -1)) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= name.length - last.length;
}

export const showCounters: Command = {
  name: 'show counters',
  usage: '[PATTERN]',
  summary: 'What is counted: packets, drops by reason, messages, records.',
  details: ['PATTERN  a part of the name, or the whole of it with * for any text: nat_*, rx, *_bytes'],
  async run({ source, words }) {
    if (words.length > 1) throw new UsageError('show counters takes one pattern');
    const [pattern = ''] = words;
    const counters = await source.counters();
    const found = counters.filter((counter) => matches(counter.name, pattern));
    if (found.length === 0) {
      const names = counters.map((counter) => counter.name);
      throw new FailedError(`no counter is called like "${pattern}"${suggestion(pattern, names)}`);
    }
    return table(COLUMNS, found);
  },
};

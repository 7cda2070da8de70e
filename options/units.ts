/**
 * Numbers with a unit, as an operator writes them: `5m`, `10M`, `256MiB`. A plain number is in the
 * option's own unit.
 *
 * | unit    | plain number     | suffixes                                       |
 * | ------- | ---------------- | ---------------------------------------------- |
 * | `ms`    | milliseconds     | `ms`, `s`, `m`, `h`                            |
 * | `s`     | seconds          | `s`, `m`, `h`, `d`                             |
 * | `bytes` | bytes            | `B`, `kB`, `MB`, `GB`, `KiB`, `MiB`, `GiB`     |
 * | `bit/s` | bits per second  | `k`, `M`, `G`, each also with `bit`            |
 *
 * `Mbit` and `percent` only name the unit of a plain number.
 */

export type Unit = 'ms' | 's' | 'bytes' | 'bit/s' | 'Mbit' | 'percent';

const SUFFIXES: Readonly<Record<Unit, Readonly<Record<string, number>>>> = {
  ms: { ms: 1, s: 1000, m: 60_000, h: 3_600_000 },
  s: { s: 1, m: 60, h: 3600, d: 86_400 },
  bytes: { B: 1, kB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 },
  'bit/s': { k: 1e3, M: 1e6, G: 1e9, kbit: 1e3, Mbit: 1e6, Gbit: 1e9 },
  Mbit: {},
  percent: {},
};

const EXAMPLES: Readonly<Record<Unit, string>> = {
  ms: 'a time such as 200ms or 5s, or a whole number of milliseconds',
  s: 'a time such as 30s, 5m or 2h, or a whole number of seconds',
  bytes: 'a size such as 64KiB or 256MiB, or a whole number of bytes',
  'bit/s': 'a rate such as 500k, 10M or 1G, or a whole number of bits a second',
  Mbit: 'a whole number',
  percent: 'a whole number',
};

/** Describes what to write, for an error. */
export function exampleOf(unit: Unit | undefined): string {
  return unit === undefined ? 'a whole number' : EXAMPLES[unit];
}

/** The suffixes of a unit. Empty: only plain numbers are allowed. */
export function suffixesOf(unit: Unit | undefined): readonly string[] {
  return unit === undefined ? [] : Object.keys(SUFFIXES[unit]);
}

/** A regular expression for numbers written as text. `null`: only plain numbers are allowed. */
export function patternOf(unit: Unit | undefined): string | null {
  const suffixes = suffixesOf(unit);
  return suffixes.length === 0 ? null : `^[0-9]+(\\.[0-9]+)?(${suffixes.join('|')})$`;
}

/** The written number, in the option's unit. `null` if it is not a number, or not a whole one. */
export function parseNumber(unit: Unit | undefined, written: unknown): number | null {
  if (typeof written === 'number') return Number.isSafeInteger(written) ? written : null;
  const pattern = patternOf(unit);
  if (pattern === null || unit === undefined || typeof written !== 'string' || !new RegExp(pattern).test(written))
    return null;
  const digits = /^[0-9.]+/.exec(written)?.[0] ?? '';
  const factor = SUFFIXES[unit][written.slice(digits.length)];
  // In floating point, 1.1MB is 1,100,000.0000000001.
  const value = Number(digits) * factor;
  const rounded = Math.round(value);
  return Math.abs(value - rounded) < 1e-6 && Number.isSafeInteger(rounded) ? rounded : null;
}

/** A number as an operator would write it: with the largest suffix that divides it. */
export function showNumber(unit: Unit | undefined, value: number): string {
  if (unit === undefined || value === 0) return String(value);
  if (unit === 'percent') return `${value} %`;
  if (unit === 'Mbit') return `${value} Mbit`;
  const preferred = Object.entries(SUFFIXES[unit]).filter(
    ([suffix]) => unit !== 'bytes' || /^(B|[KMG]iB)$/.test(suffix),
  );
  const [suffix, factor] = preferred
    .filter(([, size]) => value % size === 0)
    .reduce((best, next) => (next[1] > best[1] ? next : best), ['', 0] as [string, number]);
  if (factor === 0) return `${value} ${unit}`;
  return `${value / factor}${suffix}`;
}

/**
 * Layouts of shared memory, declared once.
 *
 * A layout is a list of named fields in 32-bit words. The file that declares a layout hides the
 * offsets behind a class, so that no other file computes with bare offsets:
 *
 *     const SLOT = struct({ state: 1, key: 2, expires: 1 });   // SLOT.at.key === 1, SLOT.words === 4
 *
 * `LINE` starts the next field on a cache line of its own, so that two writers never share one
 * (false sharing).
 */

export const BYTES_PER_WORD = 4;
export const WORDS_PER_LINE = 16;
export const BYTES_PER_LINE = WORDS_PER_LINE * BYTES_PER_WORD;

/** A field of one word that starts on its own cache line. */
export const LINE = { words: 1, line: true } as const;

type Field = number | { readonly words: number; readonly line: boolean };

export interface Struct<Name extends string> {
  /** Word offset of each field. */
  readonly at: Readonly<Record<Name, number>>;
  /** Size of the whole, in words. A multiple of a cache line if a field asked for one. */
  readonly words: number;
  readonly bytes: number;
}

export function struct<Name extends string>(fields: Readonly<Record<Name, Field>>): Struct<Name> {
  const at = {} as Record<Name, number>;
  let next = 0;
  let lines = false;
  for (const name of Object.keys(fields) as Name[]) {
    const field: Field = fields[name];
    const words = typeof field === 'number' ? field : field.words;
    if (!Number.isInteger(words) || words < 1) throw new RangeError(`struct field ${name}: ${words} words`);
    if (typeof field !== 'number' && field.line) {
      lines = true;
      next = roundUp(next, WORDS_PER_LINE);
    }
    at[name] = next;
    next += words;
  }
  const words = lines ? roundUp(next, WORDS_PER_LINE) : next;
  return { at, words, bytes: words * BYTES_PER_WORD };
}

/** `value` rounded up to a multiple of `step`, a power of two. */
export function roundUp(value: number, step: number): number {
  return Math.ceil(value / step) * step;
}

/** The smallest power of two that is not below `value`. Throws above 2^30. */
export function powerOfTwo(value: number): number {
  if (value > 2 ** 30) throw new RangeError(`${value} is more than the 2^30 words or slots a table can have`);
  let power = 1;
  while (power < value) power *= 2;
  return power;
}

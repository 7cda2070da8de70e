/** Problems of a configuration, by setting. Their lines are looked up later. */

export type Path = readonly (string | number)[];

export interface Problem {
  readonly path: Path;
  /** Whether the key itself is wrong (unknown, misplaced), or its value. */
  readonly at: 'key' | 'value';
  readonly message: string;
}

/**
 * `cluster.members[1].address`, as in messages. A key that is not a plain word, such as a path, is
 * in brackets too.
 */
export function pathText(path: Path): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === 'number' || !/^[\w-]+$/.test(step)) return `${text}[${step}]`;
    return text === '' ? step : `${text}.${step}`;
  }, '');
}

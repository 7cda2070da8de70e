/** What is wrong with a configuration, before it is known on which line. */

export type Path = readonly (string | number)[];

export interface Problem {
  readonly path: Path;
  /** Whether the key itself is wrong (unknown, misplaced), or its value. */
  readonly at: 'key' | 'value';
  readonly message: string;
}

/**
 * `cluster.members[1].address`, as in messages; a key that is a path or the like stands in brackets
 * too.
 */
export function pathText(path: Path): string {
  return path.reduce<string>((text, step) => {
    if (typeof step === 'number' || !/^[\w-]+$/.test(step)) return `${text}[${step}]`;
    return text === '' ? step : `${text}.${step}`;
  }, '');
}

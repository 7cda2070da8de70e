/**
 * The truth that members are compared with: every operation of every incarnation of every member,
 * as its worker did it.
 */

import { mix } from './random.js';

export type Work =
  | { readonly kind: 'note'; readonly number: number }
  | { readonly kind: 'add'; readonly key: number; readonly check: number };

/** The operations of one incarnation on one object. */
export class Issued {
  notes = 0;
  /** Operations of all kinds. */
  operations = 0;
  readonly adds = new Map<number, { count: number; check: number }>();
  /** For counting objects: sum of the counts per cell. */
  readonly cells = new Map<number, number>();
}

export interface MemberIncarnation {
  readonly author: number;
  readonly member: number;
  /**
   * The incarnation number. It is raised while the member joins, if the members know a later one.
   */
  incarnation: number;
  readonly issued: readonly Issued[];
}

export class Model {
  private readonly lives: MemberIncarnation[] = [];
  private readonly objects: number;

  constructor(objects: number) {
    this.objects = objects;
  }

  begin(member: number, incarnation: number): MemberIncarnation {
    const life: MemberIncarnation = {
      author: this.lives.length,
      member,
      incarnation,
      issued: Array.from({ length: this.objects }, () => new Issued()),
    };
    this.lives.push(life);
    return life;
  }

  get all(): readonly MemberIncarnation[] {
    return this.lives;
  }

  life(author: number): MemberIncarnation | undefined {
    return this.lives[author];
  }

  issued(author: number, object: number): Issued {
    return this.lives[author].issued[object];
  }

  nextNote(author: number, object: number): Work {
    return { kind: 'note', number: this.issued(author, object).notes + 1 };
  }

  nextAdd(author: number, object: number, key: number): Work {
    const count = this.issued(author, object).adds.get(key)?.count ?? 0;
    return { kind: 'add', key, check: mix(author, object, key, count) | 0 };
  }

  /** Records that the operation was done. */
  note(author: number, object: number, work: Work): void {
    const issued = this.issued(author, object);
    issued.operations++;
    if (work.kind === 'note') {
      issued.notes = work.number;
      return;
    }
    const sum = issued.adds.get(work.key) ?? { count: 0, check: 0 };
    issued.adds.set(work.key, { count: sum.count + 1, check: (sum.check + work.check) | 0 });
  }

  count(author: number, object: number, cell: number, n: number): void {
    const issued = this.issued(author, object);
    issued.operations++;
    issued.cells.set(cell, (issued.cells.get(cell) ?? 0) + n);
  }

  get operations(): number {
    let operations = 0;
    for (const life of this.lives) for (const issued of life.issued) operations += issued.operations;
    return operations;
  }
}

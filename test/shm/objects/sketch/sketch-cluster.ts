/**
 * Three sites that share one counting sketch, and messages between them in whatever order the form
 * allows.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import type { StateDefinition, StateObject } from '../../../../shm/objects/core/object.js';
import type { WireForm } from '../../../../shm/objects/counting/counter-cells.js';
import { type Message, Site } from '../site.js';

export const FORMS: readonly WireForm[] = ['totals', 'increments'];
const SITES = 3;
const WORKERS = 2;

export interface SketchStep {
  readonly act: 'count' | 'drain' | 'cut' | 'deliver';
  readonly site: number;
  readonly worker: number;
  readonly key: number;
  readonly n: number;
}

export const sketchSteps: fc.Arbitrary<SketchStep[]> = fc.array(
  fc.record({
    act: fc.constantFrom('count', 'count', 'count', 'drain', 'cut', 'deliver', 'deliver'),
    site: fc.nat(SITES - 1),
    worker: fc.nat(WORKERS - 1),
    key: fc.nat(30),
    n: fc.oneof(fc.nat(5), fc.nat(2 ** 40)),
  }),
  { maxLength: 120 },
);

export class SketchCluster<T extends StateObject> {
  readonly sites: Site<T>[];
  private readonly form: WireForm;
  private readonly sent: Message[][] = Array.from({ length: SITES }, () => []);
  private readonly next = Array.from({ length: SITES }, () => new Array<number>(SITES).fill(0));

  constructor(definition: StateDefinition<T>, form: WireForm) {
    this.form = form;
    this.sites = Array.from({ length: SITES }, (_, i) => new Site(definition, i, SITES, WORKERS));
  }

  /** `count` is what a worker does with the step's key. */
  step(step: SketchStep, count: (object: T, step: SketchStep) => void): void {
    const { act, site, worker, n } = step;
    if (act === 'count') count(this.sites[site].workers[worker], step);
    else if (act === 'drain') this.sites[site].drain(n % 9);
    else if (act === 'cut') this.sent[site].push(this.sites[site].cut());
    else this.deliver(site, (site + 1 + (worker % (SITES - 1))) % SITES, n);
  }

  /** Totals: any message, again and again. Increments: the next one, once. */
  private deliver(from: number, to: number, pick: number): void {
    const sent = this.sent[from];
    if (sent.length === 0) return;
    if (this.form === 'totals') this.sites[to].apply(sent[pick % sent.length], from, 0);
    else if (this.next[to][from] < sent.length) this.sites[to].apply(sent[this.next[to][from]++], from, 0);
  }

  /** Everything reaches everybody; totals last things first. Then all digests are equal. */
  settle(): void {
    for (const [from, site] of this.sites.entries()) {
      this.sent[from].push(site.cut(), ...site.flush());
      for (let to = 0; to < SITES; to++) {
        if (to === from) continue;
        const rest = this.form === 'totals' ? this.sent[from].toReversed() : this.sent[from].slice(this.next[to][from]);
        for (const message of rest) this.sites[to].apply(message, from, 0);
        this.next[to][from] = this.sent[from].length;
      }
    }
    assert.equal(new Set(this.sites.map((site) => site.receiver.digest())).size, 1);
  }
}

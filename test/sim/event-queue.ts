/**
 * Pending events in the order of their time. Events of the same time run in the order in which they
 * were added. A binary heap.
 */

export type Action = () => void;

interface Entry {
  readonly at: number;
  readonly order: number;
  readonly act: Action;
}

const isBefore = (a: Entry, b: Entry): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);

export class EventQueue {
  /** Time of the current event, ms. */
  now = 0;
  private readonly heap: Entry[] = [];
  private order = 0;

  get size(): number {
    return this.heap.length;
  }

  /** Schedules `act` at time `at`, but not before now. */
  at(at: number, act: Action): void {
    const { heap } = this;
    const entry: Entry = { at: Math.max(at, this.now), order: this.order++, act };
    let i = heap.length;
    heap.push(entry);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(entry, heap[parent])) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = entry;
  }

  after(ms: number, act: Action): void {
    this.at(this.now + ms, act);
  }

  /**
   * Advances to the next event at or before `until` and runs it. Returns false, with the time at
   * `until`, if there is no such event.
   */
  step(until: number): boolean {
    const { heap } = this;
    const next = heap[0];
    if (next === undefined || next.at > until) {
      this.now = Math.max(this.now, until);
      return false;
    }
    const last = heap.pop() as Entry;
    if (heap.length > 0) this.sink(last);
    this.now = next.at;
    next.act();
    return true;
  }

  private sink(entry: Entry): void {
    const { heap } = this;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], entry)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = entry;
  }
}

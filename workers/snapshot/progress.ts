/** The progress of a snapshot's transfer, for status and log. */

export class Progress {
  readonly member: number;
  readonly total: number;
  private moved = 0;
  private logged = 0;
  private readonly startedAt = performance.now();
  private readonly log: (text: string) => void;

  /** `log` gets a line for each quarter of the transfer. */
  constructor(member: number, total: number, log: (text: string) => void) {
    this.member = member;
    this.total = total;
    this.log = log;
  }

  get bytes(): number {
    return this.moved;
  }

  /** Whole percent. */
  get percent(): number {
    return this.total === 0 ? 100 : Math.trunc((100 * this.moved) / this.total);
  }

  get mebibytesPerSecond(): number {
    return this.moved / 2 ** 20 / Math.max(1e-3, (performance.now() - this.startedAt) / 1000);
  }

  add(bytes: number): void {
    this.moved += bytes;
    if (this.percent < this.logged + 25) return;
    this.logged = this.percent - (this.percent % 25);
    this.log(`${this.toString()}`);
  }

  toString(): string {
    return `${this.percent} % of ${(this.total / 2 ** 20).toFixed(1)} MiB at ${this.mebibytesPerSecond.toFixed(1)} MiB/s`;
  }
}

/**
 * Random draws of the simulator, all from one seed. Every concern has its own stream, named by its
 * purpose. So removing a part of a plan (shrink.ts) leaves the draws of all other parts unchanged.
 */

import { seeded } from '../../workers/transport/fault.js';

/** A 32-bit hash of whole numbers and text, the same on every machine (FNV-1a, then mixed). */
export function mix(...parts: readonly (number | string)[]): number {
  let hash = 0x811c9dc5;
  for (const part of parts) {
    const text = typeof part === 'number' ? `#${part}` : part;
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    hash = Math.imul(hash ^ 0x7c, 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

export class Stream {
  private readonly draw: () => number;

  constructor(...name: readonly (number | string)[]) {
    this.draw = seeded(mix(...name));
  }

  /** In [0, 1). */
  unit(): number {
    return this.draw();
  }

  /** In [from, to). */
  between(from: number, to: number): number {
    return from + (to - from) * this.draw();
  }

  /** Whole, in 0 … below − 1. */
  below(below: number): number {
    return Math.floor(this.draw() * below);
  }

  /** Whole, in from … to. */
  whole(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  chance(probability: number): boolean {
    return this.draw() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)];
  }

  /** Positive, with a heavy tail: a Pareto draw of shape 1.2, at most `max`. */
  tail(scale: number, max: number): number {
    return Math.min(max, scale * ((1 - this.draw()) ** (-1 / 1.2) - 1));
  }

  shuffled<T>(from: readonly T[]): T[] {
    const out = [...from];
    for (let i = out.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  }
}

/**
 * The estimate from the registers of a HyperLogLog: Ertl's improved raw estimator ("New cardinality
 * estimation algorithms for HyperLogLog sketches", 2017, algorithm 6). It is unbiased from 0 on,
 * without linear counting, tables or a threshold between them.
 */

/** Ertl 2017: the limit of the bias correction for many registers. */
const ALPHA = 1 / (2 * Math.LN2);

/**
 * `having[r]`: how many of the `registers` registers hold rank r. The last rank is the maximum.
 */
export function estimateOf(having: Float64Array, registers: number): number {
  const rankMax = having.length - 1;
  let z = registers * tau(1 - having[rankMax] / registers);
  for (let rank = rankMax - 1; rank >= 1; rank--) z = 0.5 * (z + having[rank]);
  z += registers * sigma(having[0] / registers);
  return (ALPHA * registers * registers) / z;
}

/**
 * σ(x) = x + Σ x^(2^k) 2^(k-1), k from 1: Ertl 2017, (17). Infinite for 1: then no register is
 * used, and the estimate is 0.
 */
function sigma(x: number): number {
  if (x === 1) return Number.POSITIVE_INFINITY;
  let power = x;
  let weight = 1;
  let sum = x;
  for (let before = -1; before !== sum; ) {
    power *= power;
    before = sum;
    sum += power * weight;
    weight += weight;
  }
  return sum;
}

/** τ(x) = (1 - x - Σ (1 - x^(2^-k))² 2^-k) / 3, k from 1: Ertl 2017, (22). */
function tau(x: number): number {
  if (x === 0 || x === 1) return 0;
  let root = x;
  let weight = 1;
  let sum = 1 - x;
  for (let before = -1; before !== sum; ) {
    root = Math.sqrt(root);
    before = sum;
    weight *= 0.5;
    sum -= (1 - root) ** 2 * weight;
  }
  return sum / 3;
}

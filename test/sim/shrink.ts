/**
 * Reduces a failing plan while it still breaks the same invariant: fewer steps (by halves, then one
 * by one), a milder network, smaller steps, an earlier end. The number of tries is bounded. The
 * result replays exactly.
 */

import type { NetworkPlan, Plan, Step } from './plan.js';
import type { Invariant } from './violation.js';
import { World } from './world.js';

/** Limits of the search: plans tried, and time by the caller's clock. */
export interface Effort {
  readonly tries: number;
  readonly outOfTime: () => boolean;
}

export function shrink(plan: Plan, invariant: Invariant, effort: Effort): Plan {
  let best = plan;
  let tries = 0;
  const isOver = (): boolean => tries >= effort.tries || effort.outOfTime();
  const fails = (candidate: Plan): boolean => {
    tries++;
    const { violation } = new World(candidate).run();
    return violation?.invariant === invariant;
  };
  const keep = (candidate: Plan): boolean => {
    if (isOver() || !fails(candidate)) return false;
    best = candidate;
    return true;
  };

  // If the safety phase failed, later steps do not matter.
  const { endMs } = new World(plan).run();
  if (endMs < plan.safetyMs) keep({ ...best, steps: best.steps.filter((step) => step.at <= endMs) });
  for (let before = -1; before !== best.steps.length && !isOver(); ) {
    before = best.steps.length;
    dropSteps(() => best, keep, isOver);
  }
  for (const mild of milder(best.network)) keep({ ...best, network: { ...best.network, ...mild } });
  for (let i = 0; i < best.steps.length && !isOver(); i++) smaller(best, i).some(keep);
  const last = best.steps.at(-1)?.at ?? 0;
  keep({ ...best, safetyMs: Math.ceil(last) + 1 });
  return best;
}

/** Removes runs of steps, long ones first. */
function dropSteps(best: () => Plan, keep: (plan: Plan) => boolean, isOver: () => boolean): void {
  for (let run = best().steps.length; run >= 1; run >>= 1)
    for (let at = 0; at < best().steps.length && !isOver(); ) {
      const { steps } = best();
      if (!keep({ ...best(), steps: [...steps.slice(0, at), ...steps.slice(at + run)] })) at += run;
    }
}

function milder(network: NetworkPlan): Partial<NetworkPlan>[] {
  const out: Partial<NetworkPlan>[] = [];
  if (network.loss > 0) out.push({ loss: 0 });
  if (network.duplicate > 0) out.push({ duplicate: 0 });
  if (network.tail > 0) out.push({ tail: 0 });
  if (network.jitterMs > 0) out.push({ jitterMs: 0 });
  return out;
}

/** Variants of the plan with a smaller step `i`. */
function smaller(plan: Plan, i: number): Plan[] {
  const step = plan.steps[i];
  const variants: Step[] = [];
  if (step.do === 'work' && step.count > 1) variants.push({ ...step, count: 1 });
  if ('ms' in step && step.ms > 1) variants.push({ ...step, ms: step.ms >> 1 });
  if (step.do === 'replay' && step.count > 1) variants.push({ ...step, count: 1 });
  return variants.map((variant) => ({ ...plan, steps: plan.steps.toSpliced(i, 1, variant) }));
}

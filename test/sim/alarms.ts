/**
 * Judges the alarms that members raise in a run: which are allowed, and what each implies for the
 * other checks.
 */

import type { Instance } from './instance.js';
import { demand } from './violation.js';
import type { World } from './world.js';

/** `slot`: the member that an alarm of the receive thread is about; -1 for the send thread. */
export function judgeAlarm(world: World, at: Instance, problem: string, slot: number): void {
  if (/was away while the next incarnation ended, too/.test(problem)) {
    world.happened('beyond repair: away while two lives ended');
    world.beyondRepair.add(slot);
  } else if (/of which only a part has come/.test(problem)) {
    world.happened('beyond repair: the origin of a backlog ended');
    world.beyondRepair.add(slot);
    // Repairs may repeat records that were coalesced in the backlog.
    for (const { author, member } of world.model.all)
      if (member === slot) for (const { ledger } of at.subjects) ledger?.tear(author);
  } else if (/not the same everywhere/.test(problem) && findsBeyondRepair(world, slot)) {
    return;
  } else if (/nobody can give it that/.test(problem) && isUnheard(world, at)) {
    world.happened('reported: a member that is heard, and does not hear');
    world.reported.add(slot);
  } else if (/is evicted here, and this instance is evicted there/.test(problem)) {
    demand(at.isCondemned, 'alarm-expected', () => `${at.name}: ${problem}`);
    world.evictions.reported(at, slot);
  } else {
    // The send thread keeps the backlog of a detached member in bounded memory, so it may lose it.
    const { settings, steps } = world.plan;
    const canLose = settings.backlogBytes !== undefined || steps.some((step) => step.do === 'send-dies');
    const expected = canLose
      ? /^the unit log is full because|needs a snapshot: |joins more slowly than|is still joining: since/
      : /^the unit log is full because/;
    const lags = (settings.maxLagMs ?? 0) > 0 && /more than replication\.max_lag_ms/.test(problem);
    demand(lags || expected.test(problem), 'alarm-expected', () => `${at.name}: ${problem}`);
    noteLost(world, at, problem);
  }
}

/**
 * Whether the link from this member to a running member is cut. What that member lacks is repaired
 * once the link works again.
 */
function isUnheard(world: World, at: Instance): boolean {
  return world.members.some(({ up, member }) => up && world.links.link(at.member, member).cuts > 0);
}

/**
 * If the alarm says that a member's backlog was given up, notes that this member skips its records.
 * The sums of ledgers cannot be merged from snapshots.
 */
function noteLost(world: World, at: Instance, problem: string): void {
  const name = /^m(\d+) needs a snapshot: /.exec(problem);
  if (name === null) return;
  noteLacking(world, world.members[Number(name[1]) - 1], at.member);
}

/**
 * `at` skips records of `slot` and takes snapshots instead. Ledgers cannot get all that they then
 * lack from snapshots.
 */
export function noteLacking(world: World, at: Instance, slot: number): void {
  for (const { ledger } of at.subjects) {
    if (ledger === null) continue;
    ledger.mayLack = true;
    world.happened('beyond repair: records of a ledger were skipped');
    world.beyondRepair.add(slot);
  }
}

function findsBeyondRepair(world: World, slot: number): boolean {
  world.findBeyondRepair(world.members.filter(({ up }) => up));
  return world.beyondRepair.has(slot);
}

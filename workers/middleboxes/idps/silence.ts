/**
 * Decides whether silence is judged. A contact without an answer has failed only if every member
 * was heard, and none was behind, from the attempt to the judgement. Otherwise another site may
 * have seen the answer. While some member is unheard or behind, judgement is suspended. When it
 * resumes, contacts that were silent until then are discarded. Refusals are always judged.
 *
 * **A member that is gone for good** must not switch detection off. Suspension has a budget of
 * `suspend_max` seconds. The budget decreases while members are incomplete, and refills at the same
 * rate while they are complete. When it is used up, judgement resumes with an alarm. This lasts
 * until all members have been complete for `STEADY_S` without a break, so a member that comes and
 * goes cannot switch detection off either.
 */

import type { Members } from '../../api/api.js';

const STEADY_S = 30;

export interface Silence {
  /** True if silence is judged now. */
  isJudged: boolean;
  /** Increases whenever contacts that were silent until then must be discarded. */
  generation: number;
  /** Upper bound on the delay, in seconds, of what the members have logged. */
  behindSeconds: number;
}

interface SilenceWatch extends Silence {
  /** Checks the members. Call it several times a second. */
  look(now: number): void;
  /** Returns why silence is not judged, or should not be. Not for the packet path. */
  reason(): string;
  /** Returns what an operator should know now. */
  conditions(): string[];
}

/** Callbacks for logging. */
interface SilenceEvents {
  suspended(): void;
  resumed(): void;
  /** Judgement resumes although members are incomplete. */
  overdrawn(): void;
}

/** For callers that need only the conditions. */
export const NO_EVENTS: SilenceEvents = { suspended: () => {}, resumed: () => {}, overdrawn: () => {} };

export function createSilence(
  members: Members,
  options: { readonly answer_seconds: number; readonly suspend_max: number },
  events: SilenceEvents,
): SilenceWatch {
  // A contact is judged once the answers that other sites saw in time have arrived. If they take
  // longer than this, the members count as behind.
  const behindMsMax = (): number => Math.max(options.answer_seconds * 1000, members.quietMs);
  let budget = options.suspend_max;
  let lookedAt = 0;
  let isOverdrawn = false;
  let isAnnounced = false;
  let steadySince = 0;

  const watch: SilenceWatch = {
    isJudged: members.others === 0,
    generation: 0,
    behindSeconds: 0,
    reason: () => members.lacking(behindMsMax()),
    conditions() {
      const why = members.lacking(behindMsMax());
      if (!watch.isJudged)
        return [`silence is not judged (${why === '' ? 'members are being looked at' : why}); refusals are`];
      return isOverdrawn ? [`silence is judged after suspend_max (${why}), and may accuse honest hosts`] : [];
    },
    look(now) {
      const passed = lookedAt === 0 ? 0 : Math.max(0, now - lookedAt);
      lookedAt = now;
      members.refresh();
      const isComplete = members.isComplete(behindMsMax());
      watch.behindSeconds = isComplete ? Math.ceil(members.mostBehindMs() / 1000) : 0;
      budget = Math.max(0, Math.min(options.suspend_max, budget + (isComplete ? passed : -passed)));
      if (!isComplete) steadySince = now;
      if (now - steadySince >= STEADY_S) isOverdrawn = false;
      if (!isComplete && !isOverdrawn && budget === 0) {
        isOverdrawn = true;
        events.overdrawn();
      }
      judge(isComplete || isOverdrawn, isComplete);
    },
  };

  function judge(isJudged: boolean, isComplete: boolean): void {
    if (isJudged === watch.isJudged && (isJudged || isAnnounced)) return;
    const wasAnnounced = isAnnounced;
    isAnnounced = !isJudged;
    watch.isJudged = isJudged;
    if (isJudged) watch.generation++;
    if (!isJudged) events.suspended();
    else if (isComplete && wasAnnounced) events.resumed();
  }

  return watch;
}

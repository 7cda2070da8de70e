/**
 * Whether silence is judged. A contact without an answer has failed only if every member was heard,
 * and none was behind, from the attempt to the judgement: else another site may have seen the
 * answer. While one is not, judgement is suspended, and what was silent until then is discarded
 * when it resumes. What was refused is judged all the same.
 *
 * **A member that is gone for good** must not switch detection off. Suspension has a budget of
 * `suspend_max` seconds, which is used up while members are not complete and refills at the same
 * rate while they are. When it is used up judgement resumes, with an alarm, until all members have
 * been complete for `STEADY_S` without a break. So one that comes and goes does not either.
 */

import type { Members } from '../../api.js';

const STEADY_S = 30;

export interface Silence {
  /** Whether silence is judged now. */
  isJudged: boolean;
  /** Grows whenever what was silent until then is to be discarded. */
  generation: number;
  /** How many seconds ago, at most, what the members had logged was here. */
  behindSeconds: number;
}

export interface SilenceWatch extends Silence {
  /** Looks at the members; some times a second. */
  look(now: number): void;
  /** Why silence is not judged, or should not be. Not for the packet path. */
  reason(): string;
  /** What an operator should know of now. */
  conditions(): string[];
}

/** What happened, for who logs it. */
export interface SilenceEvents {
  suspended(): void;
  resumed(): void;
  /** Judgement resumes although members are not complete. */
  overdrawn(): void;
}

/** For who only asks for conditions. */
export const NO_EVENTS: SilenceEvents = { suspended: () => {}, resumed: () => {}, overdrawn: () => {} };

export function createSilence(
  members: Members,
  options: { readonly answer_seconds: number; readonly suspend_max: number },
  events: SilenceEvents,
): SilenceWatch {
  // A contact is judged when the answers that other sites saw in time are here; longer than this
  // they are not waited for.
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

/**
 * Finds the rule that decides about a packet, and the rules that count or log it on the way.
 *
 * Only `decide` uses up the packets that `limit` allows. The other questions are about packets that
 * are not being decided now.
 */

import type { OpenArguments } from '../../api/api.js';
import { Ask, createLimits } from './limits.js';
import { createLookup } from './lookup.js';
import type { PacketWords } from './packet-words.js';
import { createPacketWords } from './packet-words.js';
import { HEAD, LOG_BIT, PACKET, QUIET_BIT, RULE, RULE_WORDS, STATELESS_BIT, VERDICT_SHIFT } from './program.js';
import { Verdict } from './rule.js';
import { State } from './vocabulary.js';

/**
 * Limit on rules without a verdict that count one packet. Further ones are passed without counting.
 */
const PASSED_MAX = 64;

type Open = Pick<OpenArguments<never, never, never, never>, 'batch'> & {
  readonly rules: { readonly words: Int32Array; readonly base: number; count(entry: number, bytes: number): void };
};

export interface Judge {
  /** The packet to look up. Call `fill` first. */
  readonly packet: Int32Array;
  readonly fill: PacketWords['fill'];
  /** Returns true if some rule applies to packets in this state (a bit of `State`). */
  speaksOf(state: number): boolean;
  /**
   * Returns the place of the rule that decides about the packet in `packet`, in this state, or -1
   * if none does. The policy decides about new and untracked packets only. For an invalid packet, a
   * rule that does not name `invalid` decides only if it drops. Otherwise the result is -1.
   */
  decide(state: number, version: number): number;
  /** Returns what `decide` would return now, but uses up no limit. */
  foresee(state: number, version: number): number;
  /** Returns what the rules decide about such packets in general, as if limits had room. */
  suppose(state: number, version: number): number;
  /** Returns true if some rule has a limit, so that asking twice differs from asking once. */
  hasLimits(): boolean;
  /**
   * Counts the rules met by the last `decide`, including `place`. Returns how many of them log.
   * Their places are in `logged`.
   */
  count(place: number, bytes: number): number;
  readonly logged: Int32Array;
  verdict(place: number): number;
  word(place: number, at: number): number;
}

export function createJudge({ batch, rules }: Open): Judge {
  const { words } = rules;
  const lookup = createLookup(words);
  const { packet } = lookup;
  const { fill } = createPacketWords(batch, packet);
  const limits = createLimits(words);
  const passed = new Int32Array(PASSED_MAX);
  const logged = new Int32Array(PASSED_MAX + 1);
  let passedCount = 0;

  function placeOf(rule: number): number {
    return rules.base + words[rules.base + HEAD.rules] + rule * RULE_WORDS;
  }

  function ask(state: number, version: number, how: number): number {
    packet[PACKET.state] = state;
    passedCount = 0;
    const { base } = rules;
    const family = version === 4 ? 1 : 2;
    let rule = lookup.find(base, family, -1);
    while (rule >= 0) {
      const place = placeOf(rule);
      const limit = words[place + RULE.limit];
      if (limit === 0 || limits.matches(base + limit, how)) {
        const said = verdict(place);
        if (said !== Verdict.CONTINUE && said !== Verdict.SKIP)
          return state === State.INVALID && !isForInvalid(place) ? -1 : place;
        if (passedCount < PASSED_MAX) passed[passedCount++] = place;
        if (said === Verdict.SKIP) rule = words[place + RULE.target] - 1;
      }
      rule = lookup.find(base, family, rule);
    }
    return state === State.NEW || state === State.UNTRACKED ? placeOf(words[base + HEAD.count] - 1) : -1;
  }

  /** Returns true if the rule's verdict applies to invalid packets. */
  function isForInvalid(place: number): boolean {
    return (words[place + RULE.what] & STATELESS_BIT) === 0 || verdict(place) === Verdict.DROP;
  }

  function verdict(place: number): number {
    return (words[place + RULE.what] >>> VERDICT_SHIFT) & 7;
  }

  function count(place: number, bytes: number): number {
    let logs = 0;
    for (let n = 0; n <= passedCount; n++) {
      const met = n < passedCount ? passed[n] : place;
      if (met < 0) continue;
      const what = words[met + RULE.what];
      if ((what & QUIET_BIT) === 0) rules.count(words[met + RULE.entry], bytes);
      if ((what & LOG_BIT) !== 0) logged[logs++] = met;
    }
    return logs;
  }

  return {
    packet,
    fill,
    speaksOf: (state) => (words[rules.base + HEAD.states] & state) !== 0,
    decide: (state, version) => ask(state, version, Ask.TAKE),
    foresee: (state, version) => ask(state, version, Ask.LOOK),
    suppose: (state, version) => ask(state, version, Ask.IGNORE),
    hasLimits: () => words[rules.base + HEAD.limits] !== 0,
    count,
    logged,
    verdict,
    word: (place, at) => words[place + at],
  };
}

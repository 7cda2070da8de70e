/** Asks the rules about a packet: which decides, and which were counted or logged on the way. */

import type { OpenArguments } from '../../api.js';
import { createLookup } from './lookup.js';
import type { PacketWords } from './packet-words.js';
import { createPacketWords } from './packet-words.js';
import { HEAD, LOG_BIT, PACKET, RULE, RULE_WORDS, STATELESS_BIT, VERDICT_SHIFT } from './program.js';
import { Verdict } from './rule.js';
import { State } from './vocabulary.js';

/** Rules without a verdict that one packet may meet and be counted by; further ones are passed over uncounted. */
const PASSED_MAX = 64;

type Open = Pick<OpenArguments<never, never, never, never>, 'batch'> & {
  readonly rules: { readonly words: Int32Array; readonly base: number; count(entry: number, bytes: number): void };
};

export interface Judge {
  /** What is looked up; `fill` it first. */
  readonly packet: Int32Array;
  readonly fill: PacketWords['fill'];
  /** Whether some rule speaks of packets in this state (a bit of `State`). */
  speaksOf(state: number): boolean;
  /**
   * Place of the rule that decides about the packet in `packet`, in this state. -1: none does. The policy decides about new
   * packets only. A rule that does not name `invalid` neither accepts nor answers an invalid packet: -1 as well.
   */
  decide(state: number, version: number): number;
  /** Counts the rules met by the last `decide`, `place` included. Returns the place of the first that logs, or -1. */
  count(place: number, bytes: number): number;
  verdict(place: number): number;
  word(place: number, at: number): number;
}

export function createJudge({ batch, rules }: Open): Judge {
  const { words } = rules;
  const lookup = createLookup(words);
  const { packet } = lookup;
  const { fill } = createPacketWords(batch, packet);
  const passed = new Int32Array(PASSED_MAX);
  let passedCount = 0;

  function placeOf(rule: number): number {
    return rules.base + words[rules.base + HEAD.rules] + rule * RULE_WORDS;
  }

  function decide(state: number, version: number): number {
    packet[PACKET.state] = state;
    passedCount = 0;
    const family = version === 4 ? 1 : 2;
    for (let rule = lookup.find(rules.base, family, -1); rule >= 0; rule = lookup.find(rules.base, family, rule)) {
      const place = placeOf(rule);
      if (verdict(place) !== Verdict.CONTINUE) return state === State.INVALID && !isForInvalid(place) ? -1 : place;
      if (passedCount < PASSED_MAX) passed[passedCount++] = place;
    }
    return state === State.NEW ? placeOf(words[rules.base + HEAD.count] - 1) : -1;
  }

  /** Whether what the rule says is done to an invalid packet. */
  function isForInvalid(place: number): boolean {
    return (words[place + RULE.what] & STATELESS_BIT) === 0 || verdict(place) === Verdict.DROP;
  }

  function verdict(place: number): number {
    return (words[place + RULE.what] >>> VERDICT_SHIFT) & 3;
  }

  function count(place: number, bytes: number): number {
    let logs = -1;
    for (let n = 0; n <= passedCount; n++) {
      const met = n < passedCount ? passed[n] : place;
      if (met < 0) continue;
      rules.count(words[met + RULE.entry], bytes);
      if (logs < 0 && (words[met + RULE.what] & LOG_BIT) !== 0) logs = met;
    }
    return logs;
  }

  return {
    packet,
    fill,
    speaksOf: (state) => (words[rules.base + HEAD.states] & state) !== 0,
    decide,
    count,
    verdict,
    word: (place, at) => words[place + at],
  };
}

/** The actions of a rule: verdicts, `reject`, `log`, `count`, `limit` and `hold`. */

import { type Cursor, said } from './cursor.js';
import { IPV4, IPV6, narrow } from './match.js';
import { LOG_LEVELS, RejectWith, Verdict } from './rule.js';
import { type Scope, skipCounts } from './scope.js';
import { only, word } from './selectors.js';
import { quote, type Token } from './tokens.js';
import { REJECT_CODES } from './vocabulary.js';
import type { Outcome, Work } from './work.js';

const TCP = 6n;
const HOLD_MS = 100;
const HOLD_MS_MAX = 10_000;
const HOLD_MEMBERS_MAX = 63;
const PREFIX_MAX = 64;
const RATE_MAX = 1_000_000_000;
const PER_SECOND_MAX = 1_000_000;
const BURST_MAX = 1_000_000;
const BURST = 5;

export type Clause = (work: Work, cursor: Cursor, scope: Scope, at: Token) => void;

const VERDICTS: Readonly<Record<string, number>> = {
  accept: Verdict.ACCEPT,
  drop: Verdict.DROP,
  return: Verdict.RETURN,
  jump: Verdict.JUMP,
  goto: Verdict.GOTO,
};

/** Reads the verdict that begins with `at`. Returns null if `at` is not a verdict. */
export function readOutcome(at: Token, cursor: Cursor): Outcome | null {
  if (at.kind !== 'word' || !Object.hasOwn(VERDICTS, at.text)) return null;
  const verdict = VERDICTS[at.text];
  if (verdict !== Verdict.JUMP && verdict !== Verdict.GOTO) return { verdict, chain: null };
  const chain = cursor.take();
  if (chain.kind !== 'word')
    cursor.fail(chain, `after ${quote(at.text)} comes the name of a chain, not ${said(chain)}`);
  return { verdict, chain };
}

/** Verdicts that an element of a map can have. */
export const MAP_VERDICTS: readonly string[] = Object.keys(VERDICTS);

function settle(work: Work, cursor: Cursor, at: Token, outcome: Outcome): void {
  if (work.outcome !== null || work.branches !== null) cursor.fail(at, 'the rule has a verdict already');
  work.outcome = outcome;
}

const verdict: Clause = (work, cursor, _scope, at) => {
  const outcome = readOutcome(at, cursor);
  if (outcome !== null) settle(work, cursor, at, outcome);
};

const reject: Clause = (work, cursor, _scope, at) => {
  settle(work, cursor, at, { verdict: Verdict.REJECT, chain: null });
  // As in nftables, TCP gets a reset only if the rule asks for it.
  work.rejectWith = RejectWith.ICMP;
  if (!cursor.accept('with')) return;
  if (cursor.accept('tcp')) {
    word(cursor, 'tcp', ['reset']);
    work.rejectWith = RejectWith.RESET;
    return narrow(work.draft, 'protocol', only(TCP));
  }
  const what = word(cursor, 'reject with', ['tcp', 'icmp', 'icmpv6', 'icmpx']) as keyof typeof REJECT_CODES;
  if (what !== 'icmpx') work.draft.versions &= what === 'icmp' ? IPV4 : IPV6;
  cursor.accept('type');
  const codes = REJECT_CODES[what];
  work.rejectCode = codes[word(cursor, what, Object.keys(codes))];
};

const log: Clause = (work, cursor, _scope, at) => {
  if (work.log !== null) cursor.fail(at, 'the rule has a log statement already');
  work.log = at;
  work.logPrefix = '';
  work.logLevel = -1;
  for (;;) {
    const next = cursor.next;
    if (cursor.accept('prefix')) work.logPrefix = prefix(cursor);
    else if (cursor.accept('level')) work.logLevel = level(cursor);
    else if (['group', 'snaplen', 'queue-threshold'].some((option) => cursor.is(option)))
      cursor.fail(
        next,
        `"log ${next.text}" is not possible: records go to the file of records, not to a netlink group`,
      );
    else if (cursor.is('flags'))
      cursor.fail(
        next,
        '"log flags" is not possible: each record has the same fields, with addresses, ports and protocol',
      );
    else return;
  }
};

function prefix(cursor: Cursor): string {
  const token = cursor.take();
  if (token.kind !== 'string') cursor.fail(token, `the prefix is a text in quotes, not ${said(token)}`);
  if (token.text.length > PREFIX_MAX) cursor.fail(token, `the prefix is longer than ${PREFIX_MAX} characters`);
  return token.text;
}

function level(cursor: Cursor): number {
  const text = word(cursor, 'level', [...LOG_LEVELS]);
  return LOG_LEVELS.indexOf(text as (typeof LOG_LEVELS)[number]);
}

const counter: Clause = (work, cursor, _scope, at) => {
  work.counter = at;
  if (at.text === 'count') return;
  if (cursor.is('name')) cursor.fail(cursor.next, '"counter name" is not possible: each rule has its own counter');
  skipCounts(cursor);
};

function number(cursor: Cursor, what: string, max: number): number {
  const token = cursor.take();
  const value = token.kind === 'word' && /^\d{1,10}$/.test(token.text) ? Number(token.text) : -1;
  if (value < 1 || value > max) cursor.fail(token, `${what} is a number from 1 to ${max}, not ${said(token)}`);
  return value;
}

const PERIODS_MS: Readonly<Record<string, number>> = {
  second: 1000,
  minute: 60_000,
  hour: 3_600_000,
  day: 86_400_000,
  week: 604_800_000,
};

/** Reads `limit rate 10/second`, `limit rate over 10/minute burst 20 packets`. */
const limit: Clause = (work, cursor, _scope, at) => {
  if (work.limit !== null) cursor.fail(at, 'the rule has a limit already');
  if (work.log !== null) cursor.fail(at, '"limit" comes before "log": what stands before it is not limited');
  if (cursor.is('name')) cursor.fail(cursor.next, '"limit name" is not possible: each rule has its own limit');
  word(cursor, 'limit', ['rate']);
  const over = cursor.accept('over');
  if (!over) cursor.accept('until');
  const token = cursor.next;
  const rate = number(cursor, 'the rate', RATE_MAX);
  if (!cursor.is('/')) {
    const bytes = 'a limit counts packets that begin connections, not bytes: write it as packets, such as 10/second';
    cursor.fail(cursor.next, /bytes$/.test(cursor.next.text) ? bytes : `expected "/", not ${said(cursor.next)}`);
  }
  cursor.take();
  const periodMs = PERIODS_MS[word(cursor, '/', Object.keys(PERIODS_MS))];
  if ((rate * 1000) / periodMs > PER_SECOND_MAX)
    cursor.fail(token, `a limit is at most ${PER_SECOND_MAX}/second, not ${rate} in ${periodMs / 1000} s`);
  let burst = BURST;
  if (cursor.accept('burst')) {
    burst = number(cursor, 'the burst', BURST_MAX);
    if (!cursor.accept('packets') && /bytes$/.test(cursor.next.text))
      cursor.fail(cursor.next, 'a limit counts packets, not bytes');
  }
  work.limit = { rate, periodMs, burst, over };
};

/** Reads `hold 2`, or `hold 2 within 200 ms`. */
const hold: Clause = (work, cursor) => {
  work.holdMembers = number(cursor, 'the number of other members that are to have the connection', HOLD_MEMBERS_MAX);
  work.holdMs = HOLD_MS;
  if (!cursor.accept('within')) return;
  const token = cursor.next;
  const joined = /^(\d{1,9})ms$/.exec(token.text);
  if (token.kind === 'word' && joined !== null) {
    cursor.take();
    work.holdMs = Number(joined[1]);
  } else {
    work.holdMs = number(cursor, 'the time to hold a packet, in milliseconds,', HOLD_MS_MAX);
    cursor.accept('ms');
  }
  if (work.holdMs < 1 || work.holdMs > HOLD_MS_MAX)
    cursor.fail(token, `a packet is held from 1 to ${HOLD_MS_MAX} ms, not ${work.holdMs}`);
};

const comment: Clause = (_work, cursor) => {
  const token = cursor.take();
  if (token.kind !== 'string') cursor.fail(token, `a comment is a text in quotes, not ${said(token)}`);
};

export const ACTIONS: Readonly<Record<string, Clause>> = {
  accept: verdict,
  drop: verdict,
  return: verdict,
  jump: verdict,
  goto: verdict,
  reject,
  count: counter,
  counter,
  log,
  limit,
  hold,
  comment,
};

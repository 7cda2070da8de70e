/** A rule as it is meant: of each field the values it speaks of, sets, names and zones resolved. */

import type { Intervals } from './intervals.js';

export const Verdict = { CONTINUE: 0, ACCEPT: 1, DROP: 2, REJECT: 3 } as const;

/** What a reject answers with. */
export const RejectWith = { DEFAULT: 0, RESET: 1, ICMP: 2 } as const;

/** A field that is null is not looked at. Ports are bits by their index. */
export interface Rule {
  readonly line: number;
  readonly text: string;
  /** Bits of `State`. */
  readonly states: number;
  /** The rule does not name a state: it accepts and rejects new packets only. */
  readonly isStateless: boolean;
  readonly source4: Intervals | null;
  readonly destination4: Intervals | null;
  readonly source6: Intervals | null;
  readonly destination6: Intervals | null;
  /** Versions it speaks of: 1 IPv4, 2 IPv6. */
  readonly versions: number;
  readonly protocol: Intervals | null;
  readonly sport: Intervals | null;
  readonly dport: Intervals | null;
  readonly icmpType: Intervals | null;
  /** Values of the byte of TCP flags. */
  readonly tcpFlags: Intervals | null;
  /** Values of the next header field of the fixed IPv6 header. */
  readonly nextHeader: Intervals | null;
  readonly inPorts: number | null;
  readonly outPorts: number | null;
  readonly verdict: number;
  readonly rejectWith: number;
  /** Of `Unreachable`. */
  readonly rejectCode: number;
  readonly log: boolean;
  readonly logPrefix: string;
  readonly holdMembers: number;
  readonly holdMs: number;
}

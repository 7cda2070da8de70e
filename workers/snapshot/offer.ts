/**
 * What state a member has to offer, for members that start together. They agree which of them
 * restores its state file, and the others take a snapshot of that one. The request goes to the
 * snapshot server's port, after the same handshake.
 */

import { checkFields, decodeCbor, encodeCbor, wholeField } from '../base/cbor.js';

export const Stands = {
  /** Without state. */
  JOINING: 0,
  /** With state: it can be a donor. */
  READY: 1,
  /** With state, but it began without any: all of its state is newer than its start. */
  BEGUN_EMPTY: 2,
} as const;
export type Stands = (typeof Stands)[keyof typeof Stands];

export interface Offer {
  readonly stands: Stands;
  /** When the state file that it would restore was saved, Unix ms; 0: it has none. */
  readonly savedMs: number;
}

export function encodeOffer({ stands, savedMs }: Offer): Buffer {
  return encodeCbor({ stands, savedMs });
}

/** Throws a `CborError` if the bytes are no offer. */
export function decodeOffer(bytes: Uint8Array): Offer {
  const { stands, savedMs } = decodeCbor(bytes, (value) =>
    checkFields<{ stands: number; savedMs: number }>(value, {
      stands: wholeField(Stands.JOINING, Stands.BEGUN_EMPTY),
      savedMs: wholeField(0),
    }),
  );
  return { stands: stands as Stands, savedMs };
}

/** A member that would restore its state file: its slot, and when the file was saved (Unix ms). */
export interface Candidate {
  readonly slot: number;
  readonly savedMs: number;
}

/**
 * The candidate that restores: the one whose file was saved last or, of several, the one in the
 * lowest slot. So all members that know the same offers choose the same one.
 */
export function restorer(candidates: readonly Candidate[]): Candidate | null {
  let best: Candidate | null = null;
  for (const candidate of candidates) {
    if (candidate.savedMs === 0) continue;
    const isLater = best === null || candidate.savedMs > best.savedMs;
    if (isLater || (candidate.savedMs === best?.savedMs && candidate.slot < best.slot)) best = candidate;
  }
  return best;
}

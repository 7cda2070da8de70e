/**
 * What state a member has to offer, for members that start together: they agree which of them
 * restores its state file, and the others take a snapshot of that one. Asked and answered over the
 * snapshot server's port, after the same handshake.
 */

import { checkFields, decodeCbor, encodeCbor, wholeField } from '../cbor.js';

export const Stands = {
  /** Without state. */
  JOINING: 0,
  /** With state, a donor. */
  READY: 1,
  /** The same, and it began without any: what it has came after its start. */
  BEGUN_EMPTY: 2,
} as const;
export type Stands = (typeof Stands)[keyof typeof Stands];

export interface Offer {
  readonly stands: Stands;
  /** When the state file was saved that it would restore, Unix ms; 0: it has none. */
  readonly savedMs: number;
}

export function encodeOffer({ stands, savedMs }: Offer): Buffer {
  return encodeCbor({ stands, savedMs });
}

/** Throws a `CborError` if it is no offer. */
export function decodeOffer(bytes: Uint8Array): Offer {
  const { stands, savedMs } = decodeCbor(bytes, (value) =>
    checkFields<{ stands: number; savedMs: number }>(value, {
      stands: wholeField(Stands.JOINING, Stands.BEGUN_EMPTY),
      savedMs: wholeField(0),
    }),
  );
  return { stands: stands as Stands, savedMs };
}

/** A member that would restore: its slot, and when its file was saved. */
export interface Candidate {
  readonly slot: number;
  readonly savedMs: number;
}

/**
 * Which of the candidates restores: the one whose file was saved last, of several the one in the
 * lowest slot. So each member that knows the same offers names the same one.
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

/**
 * Decides whether this start restores a state file, when no member with state is heard.
 *
 * Members that start together ask each other what they can offer, over the snapshot server's port.
 * The member with the latest file restores it (offer.ts). The others then hear a member with state
 * and take its snapshot. So only one of the files counts, and all members have the same state:
 * nothing is counted twice. A member without a file asks as well, so it does not begin empty while
 * another member can restore.
 */

import { type AckBoard, PeerRecord } from '../../shm/ack-board.js';
import type { MemberTable } from '../../shm/members.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import type { Instance } from '../../workers/engine/instance.js';
import { selfIndex } from '../../workers/replication/settings.js';
import { askOffer } from '../../workers/snapshot/client.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import { type Candidate, type Offer, restorer, Stands } from '../../workers/snapshot/offer.js';
import type { Log } from '../base/log.js';
import type { StateKeeper } from './state-keeper.js';

interface RestorationOptions {
  readonly instance: Instance;
  readonly board: AckBoard;
  readonly members: MemberTable;
  readonly circle: Circle;
  readonly keeper: StateKeeper;
  readonly log: Log;
  readonly signal: AbortSignal;
}

/** What to do now. `reason`: what it waits for, for people. */
type Decision =
  | { readonly kind: 'restore' }
  | { readonly kind: 'empty' }
  | { readonly kind: 'wait'; readonly reason: string };

const ASK_MS_MAX = 1_000;
/** A member that is heard but does not answer for this time counts as one without a file. */
const PATIENCE_MS = 5_000;

export class Restoration {
  private readonly options: RestorationOptions;
  /** By slot: since when a member that is heard has not answered. */
  private readonly unanswered = new Map<number, number>();

  constructor(options: RestorationOptions) {
    this.options = options;
  }

  /**
   * `isTogether`: each member that is heard knows this start of ours, and said so before it had
   * state.
   */
  async decide(isTogether: boolean): Promise<Decision> {
    const { instance, keeper, members } = this.options;
    const self = selfIndex(instance.plan.replication);
    members.refresh();
    const candidates: Candidate[] = [{ slot: self, savedMs: keeper.candidate?.savedMs ?? 0 }];
    const slots = Array.from({ length: members.slots }, (_, slot) => slot).filter((slot) => this.isHeard(slot, self));
    const offers = await Promise.all(slots.map((slot) => this.ask(slot)));
    for (const [i, offer] of offers.entries()) {
      const name = members.name(slots[i]);
      if (offer === null) return { kind: 'wait', reason: `asks ${name} whether it has a state file` };
      // A member that has just begun empty, as we may, still has all its records since then to
      // send.
      const hasBegunAlike = offer.stands === Stands.BEGUN_EMPTY && isTogether && keeper.candidate === null;
      if (offer.stands !== Stands.JOINING && !hasBegunAlike)
        return { kind: 'wait', reason: `waits until ${name}, which has state, is heard` };
      candidates.push({ slot: slots[i], savedMs: offer.savedMs });
    }
    const best = restorer(candidates);
    if (best === null) return { kind: 'empty' };
    if (best.slot === self) return { kind: 'restore' };
    return { kind: 'wait', reason: `waits for ${members.name(best.slot)}, whose state file is the latest` };
  }

  private isHeard(slot: number, self: number): boolean {
    const { board, members, instance } = this.options;
    if (slot === self || !members.isMember(slot)) return false;
    const peer = new PeerRecord();
    board.readPeer(slot, peer);
    return peer.incarnation !== 0 && monotonicMs() - peer.heardAt <= instance.plan.replication.silentMs;
  }

  /** `null`: no answer yet. */
  private async ask(slot: number): Promise<Offer | null> {
    const { instance, members, circle, log, signal } = this.options;
    const { unanswered } = this;
    try {
      const offer = await askOffer({
        ...{ client: instance.plan.replication.self, server: members.id(slot), circle, signal },
        ...{ address: members.address(slot), port: members.port(slot) },
        ...{ connectMs: ASK_MS_MAX, idleMs: ASK_MS_MAX },
      });
      unanswered.delete(slot);
      return offer;
    } catch (error) {
      signal.throwIfAborted();
      const since = unanswered.get(slot) ?? monotonicMs();
      unanswered.set(slot, since);
      if (monotonicMs() - since < PATIENCE_MS) return null;
      log.warn(`joining: counts ${members.name(slot)} as one without a state file: ${(error as Error).message}`);
      return { stands: Stands.JOINING, savedMs: 0 };
    }
  }
}

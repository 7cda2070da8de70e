/**
 * Reports once each when members fall silent, leave, or are heard again, for the log and for
 * `on_member_lost`.
 */

import type { PeerStatus } from '../../workers/replication/membership/peers.js';

interface LossWatchOptions {
  readonly onLost: (peer: PeerStatus) => void;
  /** The member left in order; nothing is lost. */
  readonly onLeft: (peer: PeerStatus) => void;
  /** Its incarnation was declared dead, here or by another member. */
  readonly onOver: (peer: PeerStatus) => void;
  readonly onHeard: (peer: PeerStatus) => void;
}

export class LossWatch {
  private readonly options: LossWatchOptions;
  /** Ids of members that were heard and have not been lost since. */
  private heard = new Set<number>();

  constructor(options: LossWatchOptions) {
    this.options = options;
  }

  /**
   * Compares the members with the last call. Forgets members that are no longer listed, or whose
   * incarnation has ended.
   */
  look(peers: readonly PeerStatus[]): void {
    const heard = new Set<number>();
    for (const peer of peers) {
      if (peer.state === 'heard') {
        heard.add(peer.id);
        if (!this.heard.has(peer.id)) this.options.onHeard(peer);
      } else if (this.heard.has(peer.id)) {
        if (peer.state === 'silent') this.options.onLost(peer);
        else if (peer.state === 'left') this.options.onLeft(peer);
        else if (peer.state === 'dead') this.options.onOver(peer);
      }
    }
    this.heard = heard;
  }
}

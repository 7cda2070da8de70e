/**
 * Notes when members fall silent, leave, and are heard again, once each: for the log, and for
 * `on_member_lost`.
 */

import type { PeerStatus } from '../../workers/replication/peers.js';

export interface LossWatchOptions {
  readonly onLost: (peer: PeerStatus) => void;
  /** In order: nothing is lost. */
  readonly onLeft: (peer: PeerStatus) => void;
  /** Its life was declared over, here or at another member. */
  readonly onOver: (peer: PeerStatus) => void;
  readonly onHeard: (peer: PeerStatus) => void;
}

export class LossWatch {
  private readonly options: LossWatchOptions;
  /** Member ids that were heard and not lost since. */
  private heard = new Set<number>();

  constructor(options: LossWatchOptions) {
    this.options = options;
  }

  /**
   * Looks at the members as they are now. One that is no longer among them, or whose life is over,
   * is forgotten.
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

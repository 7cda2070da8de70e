/** Notes when members fall silent and when they are heard again, once each: for the log, and for `on_member_lost`. */

import type { PeerStatus } from '../../workers/replication/peers.js';

export interface LossWatchOptions {
  readonly onLost: (peer: PeerStatus) => void;
  readonly onHeard: (peer: PeerStatus) => void;
}

export class LossWatch {
  private readonly options: LossWatchOptions;
  /** Member ids that were heard and not lost since. */
  private heard = new Set<number>();

  constructor(options: LossWatchOptions) {
    this.options = options;
  }

  /** Looks at the members as they are now. One that is no longer among them, or whose life is over, is forgotten. */
  look(peers: readonly PeerStatus[]): void {
    const heard = new Set<number>();
    for (const peer of peers) {
      if (peer.state === 'heard') {
        heard.add(peer.id);
        if (!this.heard.has(peer.id)) this.options.onHeard(peer);
      } else if (peer.state === 'silent' && this.heard.has(peer.id)) this.options.onLost(peer);
    }
    this.heard = heard;
  }
}

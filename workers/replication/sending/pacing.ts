/**
 * A limit on what an instance sends, in bits per second of IP packets. Everything counts: units,
 * retransmissions, acknowledgements.
 *
 * It is a token bucket between the core and the outlet. In any 100 ms, no more is sent than the
 * limit carries in that time. The bucket holds the cost of a few messages to all members, and is
 * filled at the rate that remains of the limit. (A limit too low for that in 100 ms is kept on
 * average.) If the bucket is too empty, `claim` returns no memory for a message, as when all memory
 * is under way, and the caller asks again later. Acknowledgements may take the bucket's last
 * message. Otherwise data would starve them, and the peers would send again what has arrived.
 *
 * **Shares.** Units are of three kinds: new ones, those sent again (including repairs), and
 * backlogs of detached members. While several kinds want to send, each gets an equal part of the
 * limit. The last two go first, as far as their credit reaches. New units take what is left. So new
 * units cannot keep a lost one from being sent again, however many they are, and the other two
 * kinds leave them at least their own part.
 */

import { type ReplicationSettings, wireOverheadBytes } from '../settings.js';
import type { Datagram } from '../wire/message.js';
import { EVERYONE, type Outlet } from './outlet.js';
import type { PeerView } from './peer-view.js';

/** The limit is kept over this time. */
const SPAN_S = 0.1;
/**
 * The bucket holds this part of what the limit carries in `SPAN_S`, but at least this many messages
 * to all members.
 */
const BURST_SHARE = 0.1;
const BURST_MESSAGES = 2;
/** The bucket is filled at least at this part of the limit. */
const FILL_SHARE_MIN = 0.25;

/** A kind counts if it wanted to send within this time, in ms. */
const WANTED_MS = 100;

/** What one kind of units may send. */
class Share {
  /** Bytes that it may send before other kinds have their turn; below 0: it has sent more. */
  credit = 0;
  wantedAt = Number.NEGATIVE_INFINITY;
}

export class Pacing {
  /** For new units. */
  readonly data: Outlet;
  /** For units that are sent again, and for backlogs. */
  readonly again: Outlet;
  readonly backlog: Outlet;
  /** For messages that must not wait behind these. */
  readonly urgent: Outlet;
  /**
   * Whether new units or acknowledgements were refused memory since `begin`, for lack of tokens.
   */
  isThrottling = false;
  /** When a claim refused since `begin` can succeed, in ms; infinite: none was refused. */
  readyAt = Number.POSITIVE_INFINITY;
  /** Messages for which there were tokens; counted only while there is a limit. */
  granted = 0;
  /** Bytes of messages with units, of all kinds. */
  unitBytes = 0;
  private readonly settings: ReplicationSettings;
  private readonly messageBytes: number;
  private readonly overhead: number;
  private readonly multicast: boolean;
  private readonly peers: PeerView;
  private outlet: Outlet | null = null;
  private tokens = 0;
  private filledAt = Number.NEGATIVE_INFINITY;
  private now = 0;
  private readonly fresh = new Share();
  private readonly repeated = new Share();
  private readonly backlogShare = new Share();
  private readonly shares: readonly Share[] = [this.fresh, this.repeated, this.backlogShare];
  /** The number of kinds that want to send. */
  private contenders = 0;

  /** `messageBytes`: the longest message, in bytes. */
  constructor(settings: ReplicationSettings, peers: PeerView, messageBytes: number) {
    this.settings = settings;
    this.overhead = wireOverheadBytes(settings);
    this.messageBytes = messageBytes + this.overhead;
    this.multicast = settings.transport.kind === 'multicast';
    this.peers = peers;
    const send =
      (share: Share | null): Outlet['send'] =>
      (datagram, bytes, object, member, spareLow, spareHigh) => {
        const spared = member === EVERYONE && !this.multicast ? bits(spareLow) + bits(spareHigh) : 0;
        const cost = (bytes + this.overhead) * (member === EVERYONE ? Math.max(0, this.copies - spared) : 1);
        this.tokens -= cost;
        if (share !== null) {
          share.credit -= cost;
          this.unitBytes += bytes;
        }
        (this.outlet as Outlet).send(datagram, bytes, object, member, spareLow, spareHigh);
      };
    this.data = { claim: () => this.claimFresh(), send: send(this.fresh) };
    this.again = { claim: () => this.claimShared(this.repeated, -this.everyone), send: send(this.repeated) };
    this.backlog = { claim: () => this.claimShared(this.backlogShare, 0), send: send(this.backlogShare) };
    this.urgent = { claim: () => this.claim(1), send: send(null) };
  }

  /** Begins a poll at `now` (ms), whose messages go to `outlet`. */
  begin(outlet: Outlet, now: number): void {
    this.outlet = outlet;
    this.now = now;
    this.isThrottling = false;
    this.readyAt = Number.POSITIVE_INFINITY;
    if (this.bytesPerSecond === 0) return;
    const gained = this.filledAt === Number.NEGATIVE_INFINITY ? Number.POSITIVE_INFINITY : (now - this.filledAt) / 1000;
    this.tokens = Math.min(
      this.burst,
      gained === Number.POSITIVE_INFINITY ? this.burst : this.tokens + gained * this.fill,
    );
    this.filledAt = now;
    this.contenders = 0;
    for (const { wantedAt } of this.shares) if (now - wantedAt <= WANTED_MS) this.contenders++;
    for (const share of this.shares)
      share.credit =
        this.contenders > 1 ? Math.min(this.burst, share.credit + (gained * this.fill) / this.contenders) : this.burst;
  }

  /** Read each time: a reload changes it. */
  private get bytesPerSecond(): number {
    return this.settings.bandwidth / 8;
  }

  /** The number of copies in which a message to all members is sent. */
  private get copies(): number {
    return this.multicast ? 1 : Math.max(1, this.peers.others);
  }

  private get burst(): number {
    return Math.max(BURST_MESSAGES * this.messageBytes * this.copies, BURST_SHARE * SPAN_S * this.bytesPerSecond);
  }

  private get fill(): number {
    return Math.max(FILL_SHARE_MIN * this.bytesPerSecond, this.bytesPerSecond - this.burst / SPAN_S);
  }

  /** The most bytes that a message to all members costs. */
  private get everyone(): number {
    return this.messageBytes * this.copies;
  }

  /**
   * The number of messages to all members, with units that are due again, for which there surely
   * are tokens now.
   */
  get messagesAgain(): number {
    return this.messages(this.repeated);
  }

  /** The same for backlogs. */
  get backlogMessages(): number {
    return this.messages(this.backlogShare);
  }

  private messages(share: Share): number {
    if (this.bytesPerSecond === 0) return Number.POSITIVE_INFINITY;
    if (!this.mayClaim(share, 0)) return 0;
    const room = Math.floor(this.tokens / this.everyone) - 1;
    return this.contenders > 1 ? Math.min(room, Math.max(1, Math.floor(share.credit / this.everyone))) : room;
  }

  private claimFresh(): Datagram | null {
    this.fresh.wantedAt = this.now;
    return this.claim(2);
  }

  private claimShared(share: Share, least: number): Datagram | null {
    if (this.bytesPerSecond === 0) return (this.outlet as Outlet).claim();
    if (!this.mayClaim(share, least)) return null;
    this.granted++;
    return (this.outlet as Outlet).claim();
  }

  /** Whether the kind may send a message now; its credit must be above `least`. */
  private mayClaim(share: Share, least: number): boolean {
    share.wantedAt = this.now;
    if (!this.has(2)) return false;
    if (this.contenders <= 1 || share.credit > least) return true;
    this.readyAt = Math.min(this.readyAt, this.now + ((least - share.credit) * this.contenders * 1000) / this.fill);
    return false;
  }

  private claim(messages: number): Datagram | null {
    if (this.bytesPerSecond === 0) return (this.outlet as Outlet).claim();
    if (!this.has(messages)) {
      this.isThrottling = true;
      return null;
    }
    this.granted++;
    return (this.outlet as Outlet).claim();
  }

  /**
   * Whether there are tokens for this many messages to all members. If not, notes when there will
   * be.
   */
  private has(messages: number): boolean {
    const need = messages * this.everyone;
    if (this.tokens >= need) return true;
    this.readyAt = Math.min(this.readyAt, this.now + ((need - this.tokens) / this.fill) * 1000);
    return false;
  }
}

/** The number of bits set in a word. */
function bits(word: number): number {
  let count = 0;
  for (let left = word; left !== 0; left &= left - 1) count++;
  return count;
}

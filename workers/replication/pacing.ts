/**
 * A limit on what an instance sends, in bits a second of IP packets, all of it counted: units,
 * repetitions, acknowledgements.
 *
 * A token bucket between the core and the outlet. In any 100 ms no more leaves than the limit
 * carries in that time: the bucket holds what a few messages to everybody cost, and is filled at
 * what is left of the limit beside that. (A limit that does not carry so much in 100 ms is kept on
 * average.) Who asks for memory for a message while the bucket is too empty gets none, as when all
 * memory is under way, and asks again. Acknowledgements may take the bucket's last message: else
 * data would starve them, and the others would send again what came.
 *
 * **Shares.** Units are of three kinds: new ones, those sent again (repairs, too), and backlogs of
 * detached members. While several kinds want to send, each gets an equal part of the limit. The
 * last two go first, as far as their credit reaches; new units take what is left. So new units
 * cannot keep a lost one from being sent again, however many they are, and the other two leave them
 * at least their own part.
 */

import { EVERYONE, type Outlet } from './channel.js';
import type { Datagram } from './message.js';
import type { PeerView } from './peer-view.js';
import { type ReplicationSettings, wireOverheadBytes } from './settings.js';

/** Over this time the limit is kept. */
const SPAN_S = 0.1;
/**
 * The bucket holds this part of what the limit carries in that time, but so many messages to
 * everybody at least.
 */
const BURST_SHARE = 0.1;
const BURST_MESSAGES = 2;
/** The bucket is filled at this part of the limit at least. */
const FILL_SHARE_MIN = 0.25;

/** A kind of units that wanted to send within this time still counts, in ms. */
const WANTED_MS = 100;

/** What one kind of units may send. */
class Share {
  /** Bytes that it may send before other kinds have their turn; below 0: it sent more. */
  credit = 0;
  wantedAt = Number.NEGATIVE_INFINITY;
}

export class Pacing {
  /** For new units. */
  readonly data: Outlet;
  /** For units that are sent again; and for backlogs. */
  readonly again: Outlet;
  readonly backlog: Outlet;
  /** For what must not wait behind them. */
  readonly urgent: Outlet;
  /**
   * Whether new units, or acknowledgements, were refused memory for want of tokens since `begin`.
   */
  isHolding = false;
  /** When what was refused memory since `begin` gets some, in ms; infinite: nothing was refused. */
  readyAt = Number.POSITIVE_INFINITY;
  /** Messages for which there was memory, as long as there is a limit. */
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
  private readonly owed = new Share();
  private readonly shares: readonly Share[] = [this.fresh, this.repeated, this.owed];
  /** Kinds that want to send. */
  private contenders = 0;

  /** `messageBytes`: longest message. */
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
    this.backlog = { claim: () => this.claimShared(this.owed, 0), send: send(this.owed) };
    this.urgent = { claim: () => this.claim(1), send: send(null) };
  }

  /** Lets messages of a poll at `now` pass to `outlet`. */
  begin(outlet: Outlet, now: number): void {
    this.outlet = outlet;
    this.now = now;
    this.isHolding = false;
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

  /** Read anew each time: a reload changes it. */
  private get bytesPerSecond(): number {
    return this.settings.bandwidth / 8;
  }

  /** Members that a message to everybody goes to one by one. */
  private get copies(): number {
    return this.multicast ? 1 : Math.max(1, this.peers.others);
  }

  private get burst(): number {
    return Math.max(BURST_MESSAGES * this.messageBytes * this.copies, BURST_SHARE * SPAN_S * this.bytesPerSecond);
  }

  private get fill(): number {
    return Math.max(FILL_SHARE_MIN * this.bytesPerSecond, this.bytesPerSecond - this.burst / SPAN_S);
  }

  /** What a message to everybody costs at most. */
  private get everyone(): number {
    return this.messageBytes * this.copies;
  }

  /** Messages to everybody of units that are due again, for which there surely is room now. */
  get messagesAgain(): number {
    return this.messages(this.repeated);
  }

  /** The same of backlogs. */
  get messagesOwed(): number {
    return this.messages(this.owed);
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

  /** Whether the kind, whose credit is to be above `least`, may send a message now. */
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
      this.isHolding = true;
      return null;
    }
    this.granted++;
    return (this.outlet as Outlet).claim();
  }

  /**
   * Whether there are tokens for so many messages to everybody; notes when there will be, if not.
   */
  private has(messages: number): boolean {
    const need = messages * this.everyone;
    if (this.tokens >= need) return true;
    this.readyAt = Math.min(this.readyAt, this.now + ((need - this.tokens) / this.fill) * 1000);
    return false;
  }
}

/** How many bits of a word are set. */
function bits(word: number): number {
  let count = 0;
  for (let left = word; left !== 0; left &= left - 1) count++;
  return count;
}

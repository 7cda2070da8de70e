/**
 * A limit on what an instance sends, in bits a second of IP packets, all of it counted: units, repetitions, acknowledgements.
 *
 * A token bucket between the core and the outlet. In any 100 ms no more leaves than the limit carries in that time: the bucket
 * holds what a few messages to everybody cost, and is filled at what is left of the limit beside that. (A limit that does not carry
 * so much in 100 ms is kept on average.) Who asks for memory for a message while the bucket is too empty gets none, as when all
 * memory is under way, and asks again. Acknowledgements may take the bucket's last message: else data would starve them, and
 * the others would send again what came.
 */

import { EVERYONE, type Outlet } from './channel.js';
import type { Datagram } from './message.js';
import type { PeerView } from './peer-view.js';
import { type ReplicationSettings, wireOverheadBytes } from './settings.js';

/** Over this time the limit is kept. */
const SPAN_S = 0.1;
/** The bucket holds this part of what the limit carries in that time, but so many messages to everybody at least. */
const BURST_SHARE = 0.1;
const BURST_MESSAGES = 2;
/** The bucket is filled at this part of the limit at least. */
const FILL_SHARE_MIN = 0.25;

export class Pacing {
  /** For units. */
  readonly data: Outlet;
  /** For what must not wait behind them. */
  readonly urgent: Outlet;
  /** Whether memory was refused for want of tokens since `begin`. */
  isHolding = false;
  /** When there will be enough for another message to everybody, in ms. */
  readyAt = Number.NEGATIVE_INFINITY;
  private readonly bytesPerSecond: number;
  private readonly messageBytes: number;
  private readonly overhead: number;
  private readonly multicast: boolean;
  private readonly peers: PeerView;
  private outlet: Outlet | null = null;
  private tokens = 0;
  private filledAt = Number.NEGATIVE_INFINITY;
  private now = 0;

  /** `messageBytes`: longest message. */
  constructor(settings: ReplicationSettings, peers: PeerView, messageBytes: number) {
    this.bytesPerSecond = settings.bandwidth / 8;
    this.overhead = wireOverheadBytes(settings);
    this.messageBytes = messageBytes + this.overhead;
    this.multicast = settings.transport.kind === 'multicast';
    this.peers = peers;
    const send: Outlet['send'] = (datagram, bytes, object, member, spareLow, spareHigh) => {
      const spared = member === EVERYONE && !this.multicast ? bits(spareLow) + bits(spareHigh) : 0;
      this.tokens -= (bytes + this.overhead) * (member === EVERYONE ? Math.max(0, this.copies - spared) : 1);
      (this.outlet as Outlet).send(datagram, bytes, object, member, spareLow, spareHigh);
    };
    this.data = { claim: () => this.claim(2), send };
    this.urgent = { claim: () => this.claim(1), send };
  }

  /** Lets messages of a poll at `now` pass to `outlet`. */
  begin(outlet: Outlet, now: number): void {
    this.outlet = outlet;
    this.now = now;
    this.isHolding = false;
    this.readyAt = Number.NEGATIVE_INFINITY;
    if (this.bytesPerSecond === 0) return;
    const gained = this.filledAt === Number.NEGATIVE_INFINITY ? Number.POSITIVE_INFINITY : (now - this.filledAt) / 1000;
    this.tokens = Math.min(
      this.burst,
      gained === Number.POSITIVE_INFINITY ? this.burst : this.tokens + gained * this.fill,
    );
    this.filledAt = now;
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

  /** Messages with units, to everybody, that surely have room now. */
  get messages(): number {
    if (this.bytesPerSecond === 0) return Number.POSITIVE_INFINITY;
    return this.has(2) ? Math.floor(this.tokens / (this.messageBytes * this.copies)) - 1 : 0;
  }

  private claim(messages: number): Datagram | null {
    return this.bytesPerSecond === 0 || this.has(messages) ? (this.outlet as Outlet).claim() : null;
  }

  /** Whether there are tokens for so many messages to everybody; notes when there will be, if not. */
  private has(messages: number): boolean {
    const need = messages * this.messageBytes * this.copies;
    if (this.tokens >= need) return true;
    this.isHolding = true;
    this.readyAt = this.now + ((need - this.tokens) / this.fill) * 1000;
    return false;
  }
}

/** How many bits of a word are set. */
function bits(word: number): number {
  let count = 0;
  for (let left = word; left !== 0; left &= left - 1) count++;
  return count;
}

/** The simulated network: a directed link between every two members, and the faults of each. */

import { crc32 } from 'node:zlib';
import type { EventQueue } from './event-queue.js';
import type { Contents, Flight } from './flight.js';
import type { Damage, NetworkPlan } from './plan.js';
import { Stream } from './random.js';

/** Queue of a narrow uplink, bytes; datagrams beyond it are dropped. */
const QUEUE_BYTES = 64 << 10;
/** Datagrams recorded per recipient, for replay. */
const HISTORY = 4096;
const TAIL_MS_MAX = 900;

interface Link {
  readonly delayMs: number;
  readonly draw: Stream;
  /** Cuts and clogs in effect. Faults may overlap. */
  cuts: number;
  clogs: number;
  kept: Flight[];
}

interface Uplink {
  loss: number;
  delayMs: number;
  bytesPerMs: number;
  freeAt: number;
}

export interface LinksHost {
  readonly queue: EventQueue;
  deliver(flight: Flight): void;
  happened(what: string): void;
}

export class Links {
  /**
   * Whether the network's permanent faults (loss, duplicates, tails) are on. They are off in the
   * liveness phase.
   */
  rough = true;
  damageRate = 0;
  damageHow: Damage = 'flip';
  sent = 0;
  delivered = 0;
  private readonly members: number;
  private readonly network: NetworkPlan;
  private readonly host: LinksHost;
  private readonly links: readonly Link[];
  private readonly uplinks: readonly Uplink[];
  private readonly history: Flight[][];
  private readonly damageDraw: Stream;

  constructor(seed: number, members: number, network: NetworkPlan, host: LinksHost) {
    this.members = members;
    this.network = network;
    this.host = host;
    this.damageDraw = new Stream(seed, 'damage');
    const [least, most] = network.delayMs;
    this.links = Array.from({ length: members * members }, (_, i) => ({
      delayMs: new Stream(seed, 'distance', i).between(least, most),
      draw: new Stream(seed, 'link', i),
      cuts: 0,
      clogs: 0,
      kept: [],
    }));
    this.uplinks = Array.from({ length: members }, () => ({ loss: 0, delayMs: 0, bytesPerMs: 0, freeAt: 0 }));
    this.history = Array.from({ length: members }, () => []);
  }

  link(from: number, to: number): Link {
    return this.links[from * this.members + to];
  }

  /**
   * Largest round trip between two of `members`, ms, with jitter, but without tails and temporary
   * faults.
   */
  roundTripMsMax(members: readonly number[]): number {
    let most = 0;
    for (const a of members)
      for (const b of members) if (a !== b) most = Math.max(most, this.link(a, b).delayMs + this.link(b, a).delayMs);
    return most + 2 * this.network.jitterMs;
  }

  // ——— Faults ———

  cut(from: readonly number[], to: readonly number[], by: 1 | -1): void {
    this.each(from, to, (link) => {
      link.cuts += by;
    });
  }

  clog(from: readonly number[], to: readonly number[], by: 1 | -1): void {
    this.each(from, to, (link) => {
      link.clogs += by;
      if (link.clogs > 0) return;
      const { kept } = link;
      link.kept = [];
      for (const flight of kept) this.host.queue.after(link.delayMs, () => this.arrive(flight));
    });
  }

  worsen(member: number, loss: number, delayMs: number): void {
    this.uplinks[member].loss = loss;
    this.uplinks[member].delayMs = delayMs;
  }

  /** Limits the member's uplink; 0: no limit. */
  narrow(member: number, bytesPerMs: number): void {
    this.uplinks[member].bytesPerMs = bytesPerMs;
    this.uplinks[member].freeAt = 0;
  }

  /** Heals all links between `members`. Nothing reaches or leaves the other members. */
  heal(members: readonly number[]): void {
    this.rough = false;
    this.damageRate = 0;
    for (let from = 0; from < this.members; from++) {
      this.worsen(from, 0, 0);
      this.narrow(from, 0);
      for (let to = 0; to < this.members; to++) {
        const link = this.link(from, to);
        const well = members.includes(from) && members.includes(to);
        link.cuts = well ? 0 : 1;
        if (well && link.clogs > 0) {
          link.clogs = 1;
          this.clog([from], [to], -1);
        }
      }
    }
  }

  private each(from: readonly number[], to: readonly number[], act: (link: Link) => void): void {
    for (const a of from) for (const b of to) if (a !== b) act(this.link(a, b));
  }

  // ——— Traffic ———

  send(from: number, to: number, object: number, bytes: Uint8Array, contents: Contents): void {
    this.sent++;
    const { network, rough, host } = this;
    const link = this.link(from, to);
    const uplink = this.uplinks[from];
    const copies = rough && link.draw.chance(network.duplicate) ? 2 : 1;
    if (copies === 2) host.happened('duplicated');
    for (let i = 0; i < copies; i++) {
      if (link.cuts > 0) {
        host.happened('lost in a cut');
        continue;
      }
      if ((rough && link.draw.chance(network.loss)) || (uplink.loss > 0 && link.draw.chance(uplink.loss))) {
        host.happened('lost');
        continue;
      }
      let flight: Flight = { bytes, sender: from, to, object, contents };
      if (this.damageRate > 0 && this.damageDraw.chance(this.damageRate)) flight = this.damage(flight);
      const queuedMs = this.queueMs(uplink, bytes.byteLength);
      if (queuedMs === null) {
        host.happened('dropped at a narrow link');
        continue;
      }
      if (link.clogs > 0) {
        host.happened('kept in a clog');
        link.kept.push(flight);
        continue;
      }
      host.queue.after(queuedMs + this.delayMs(link) + uplink.delayMs, () => this.arrive(flight));
    }
  }

  private delayMs(link: Link): number {
    const { network, rough } = this;
    let ms = link.delayMs + link.draw.between(0, network.jitterMs);
    if (rough && network.tail > 0 && link.draw.chance(network.tail)) {
      this.host.happened('delayed by a tail');
      ms += link.draw.tail(network.tailMs, TAIL_MS_MAX);
    }
    return ms;
  }

  /** Time that the datagram waits on the uplink, ms; null if the queue is full. */
  private queueMs(uplink: Uplink, bytes: number): number | null {
    if (uplink.bytesPerMs === 0) return 0;
    const { now } = this.host.queue;
    const start = Math.max(now, uplink.freeAt);
    if ((start - now) * uplink.bytesPerMs > QUEUE_BYTES) return null;
    uplink.freeAt = start + bytes / uplink.bytesPerMs;
    return uplink.freeAt - now;
  }

  private arrive(flight: Flight): void {
    // A cut does not stop datagrams that were already in transit.
    this.delivered++;
    if (flight.contents !== null) {
      const history = this.history[flight.to];
      if (history.length < HISTORY) history.push(flight);
      else history[this.delivered % HISTORY] = flight;
    }
    this.host.deliver(flight);
  }

  /** Recorded datagrams that were delivered to `to`. */
  played(to: number): readonly Flight[] {
    return this.history[to];
  }

  // ——— Damage ———

  private damage(flight: Flight): Flight {
    this.host.happened(`damaged: ${this.damageHow}`);
    const { damageDraw: draw } = this;
    const { length } = flight.bytes;
    let bytes: Uint8Array;
    switch (this.damageHow) {
      case 'flip': {
        bytes = flight.bytes.slice();
        const flips = draw.whole(1, 4);
        for (let i = 0; i < flips; i++) bytes[draw.below(length)] ^= 1 << draw.below(8);
        break;
      }
      case 'truncate':
        bytes = flight.bytes.slice(0, draw.below(length));
        break;
      case 'extend':
        bytes = new Uint8Array(length + draw.whole(1, 64));
        bytes.set(flight.bytes);
        break;
      case 'splice': {
        bytes = flight.bytes.slice();
        const at = draw.below(length);
        bytes.copyWithin(draw.below(length), at, Math.min(length, at + draw.whole(4, 64)));
        break;
      }
    }
    // The damage may have left the bytes as they were.
    if (crc32(bytes) === crc32(flight.bytes)) return flight;
    return { ...flight, bytes, contents: null };
  }
}

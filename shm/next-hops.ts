/**
 * Next hops: the link-layer addresses of IPv4 and IPv6 neighbours on each port. Main learns them;
 * workers use them.
 *
 *     line 0   version   odd while main writes                        main writes, workers read
 *     line 1   bell      a worker wants a neighbour it does not know  workers add, main waits
 *     line 2   key       of the hash of IPv6 addresses                written once, before any thread reads
 *     wanted   per port `WANTED_CELLS` of: check (0: none), IP version, address (4)   workers write, main takes
 *     slots    2^n of: key (0: free), address (4), MAC bytes 0–3, MAC bytes 4–5
 *
 * An IPv4 address is the first of four words; the others are 0. A slot's key is port and IP
 * version, so that the lookup of an IPv4 neighbour compares two words.
 *
 * **Reading** uses a sequence lock, once per batch and only if something changed. A worker loads
 * `version`. If it is new and even, the worker copies all slots into its own memory, loads
 * `version` again, and uses the copy only if the version is still the same. So no packet ever meets
 * a half-written entry, main may lay out the slots anew for every change, and a lookup costs plain
 * loads of the worker's own memory. (On x86-64, loads are not reordered with loads, nor is a
 * builtin copy with the atomic loads around it.)
 *
 * **Wanting** is plain stores into a cell chosen by the address. Two workers, or two addresses, may
 * overwrite or mix each other's stores. `check`, a hash of all the rest, does not match a mixture,
 * and main discards it. The loser's next packet asks again, which costs one more drop and nothing
 * else. No lock exists that a dying worker could leave locked.
 *
 * **Hashing.** IPv4 neighbours are in one subnet, which bounds how many can collide. A host on an
 * IPv6 link can take any number of addresses, so those are hashed under a key.
 */

import { randomFillSync } from 'node:crypto';
import { hash4 } from './hash.js';
import { NONE } from './none.js';
import { Region } from './region.js';
import { LINE, powerOfTwo, struct } from './struct.js';

/** A raw IPv4 address, or an IPv6 address of four raw words. */
export type RawAddress = number | Int32Array;

const HEADER = struct({ version: LINE, bell: LINE, key: { words: 2, line: true } });
const { version: VERSION, bell: BELL, key: HASH_KEY } = HEADER.at;
const SLOT = struct({ key: 1, address: 4, macLow: 1, macHigh: 1, padding: 1 });
const { key: KEY, address: ADDRESS, macLow: MAC_LOW, macHigh: MAC_HIGH } = SLOT.at;
const SLOT_WORDS = SLOT.words;
const WANTED_CELLS = 32;
const WANTED = struct({ check: 1, version: 1, address: 4, padding: 2 });
const { check: CHECK, version: IP_VERSION, address: WANTED_ADDRESS } = WANTED.at;
const WANTED_WORDS = WANTED.words;

export interface Neighbour {
  readonly port: number;
  readonly address: RawAddress;
  /** MAC address: bytes 0–3 as a raw word, bytes 4–5 in the low half of another. */
  readonly mac: { readonly low: number; readonly high: number };
}

/** Shared memory for the next hops of `ports` ports, with at most `neighbours` neighbours. */
export function createNextHops(ports: number, neighbours = 4096): SharedArrayBuffer {
  const slots = powerOfTwo(neighbours * 2);
  const buffer = new SharedArrayBuffer(HEADER.bytes + wantedWords(ports) * 4 + slots * SLOT.bytes);
  new Region(buffer).i32(0, HEADER.words).set(randomFillSync(new Int32Array(2)), HASH_KEY);
  return buffer;
}

function wantedWords(ports: number): number {
  return ports * WANTED_CELLS * WANTED_WORDS; // a whole number of cache lines
}

/** Key of the slots of a port. Never 0. */
function keyOf(port: number, ipVersion: 4 | 6): number {
  return ((port + 1) << 1) | (ipVersion === 6 ? 1 : 0);
}

function hashIpv4(address: number, port: number): number {
  const hash = Math.imul(address ^ Math.imul(port, 0x85ebca6b), 0x9e3779b1);
  return hash ^ (hash >>> 15);
}

/** Hash of the address at `words[at … at + 4)`, under the key `k0`, `k1`. */
function hashIpv6(k0: number, k1: number, words: Int32Array, at: number, port: number): number {
  return hash4(k0 ^ port, k1, words[at], words[at + 1], words[at + 2], words[at + 3]);
}

function holds(slots: Int32Array, at: number, words: Int32Array, from: number): boolean {
  return (
    slots[at + ADDRESS] === words[from] &&
    slots[at + ADDRESS + 1] === words[from + 1] &&
    slots[at + ADDRESS + 2] === words[from + 2] &&
    slots[at + ADDRESS + 3] === words[from + 3]
  );
}

interface Views {
  header: Int32Array;
  wanted: Int32Array;
  slots: Int32Array;
  mask: number;
  k0: number;
  k1: number;
}

function open(buffer: SharedArrayBuffer, ports: number): Views {
  const region = new Region(buffer);
  const header = region.i32(0, HEADER.words);
  const slots = region.i32(HEADER.bytes + wantedWords(ports) * 4);
  const count = slots.length / SLOT_WORDS;
  if (count !== powerOfTwo(count)) throw new RangeError(`next hop memory is not that of ${ports} ports`);
  return {
    header,
    wanted: region.i32(HEADER.bytes, wantedWords(ports)),
    slots,
    mask: count - 1,
    k0: header[HASH_KEY],
    k1: header[HASH_KEY + 1],
  };
}

/** Matches only this wanted address, except with probability 2^-32. Never 0. */
function checkOf({ k0, k1 }: Views, ipVersion: 4 | 6, words: Int32Array, at: number, port: number): number {
  return hashIpv6(k0 ^ (ipVersion << 16), k1, words, at, port) || 1;
}

/** Main's side. */
export class NextHopWriter {
  private readonly views: Views;
  /** What the slots hold (`current`) and what they shall hold (`next`). */
  private current: Int32Array;
  private next: Int32Array;
  /** An address as four words. */
  private readonly words = new Int32Array(4);

  constructor(buffer: SharedArrayBuffer, ports: number) {
    this.views = open(buffer, ports);
    this.current = new Int32Array(this.views.slots.length);
    this.next = new Int32Array(this.views.slots.length);
  }

  /** Maximum number of neighbours. Half the slots stay free, so that lookups end soon. */
  get capacity(): number {
    return (this.views.mask + 1) / 2;
  }

  /**
   * Makes the table hold exactly these neighbours. A later one replaces an earlier one of the same
   * port and address. Returns how many did not fit. Workers see a change only if the content
   * differs.
   */
  replace(neighbours: readonly Neighbour[]): number {
    const { next } = this;
    next.fill(0);
    let used = 0;
    let refused = 0;
    for (const neighbour of neighbours) {
      const at = this.place(neighbour);
      if (next[at + KEY] === 0 && ++used > this.capacity) {
        refused++;
        continue;
      }
      next[at + KEY] = keyOf(neighbour.port, ipVersionOf(neighbour.address));
      next.set(this.words, at + ADDRESS);
      next[at + MAC_LOW] = neighbour.mac.low;
      next[at + MAC_HIGH] = neighbour.mac.high & 0xffff;
    }
    if (Buffer.from(next.buffer).equals(new Uint8Array(this.current.buffer))) return refused;
    const { header, slots } = this.views;
    Atomics.add(header, VERSION, 1);
    slots.set(next);
    Atomics.add(header, VERSION, 1);
    this.next = this.current;
    this.current = next;
    return refused;
  }

  /** Index in `next` of a neighbour, or of the free slot for it. Leaves its address in `words`. */
  private place({ port, address }: Neighbour): number {
    const { next, words } = this;
    const { mask, k0, k1 } = this.views;
    const key = keyOf(port, ipVersionOf(address));
    words.fill(0);
    if (typeof address === 'number') words[0] = address;
    else words.set(address);
    const hash = typeof address === 'number' ? hashIpv4(address, port) : hashIpv6(k0, k1, address, 0, port);
    for (let slot = hash & mask; ; slot = (slot + 1) & mask) {
      const at = slot * SLOT_WORDS;
      if (next[at + KEY] === 0 || (next[at + KEY] === key && holds(next, at, words, 0))) return at;
    }
  }

  /** Takes every address that a worker wants. */
  takeWanted(): { port: number; address: RawAddress }[] {
    const { wanted } = this.views;
    const taken: { port: number; address: RawAddress }[] = [];
    for (let cell = 0; cell < wanted.length; cell += WANTED_WORDS) {
      const check = Atomics.load(wanted, cell + CHECK);
      if (check === 0) continue;
      const port = Math.floor(cell / (WANTED_CELLS * WANTED_WORDS));
      const ipVersion = wanted[cell + IP_VERSION] === 6 ? 6 : 4;
      const words = wanted.slice(cell + WANTED_ADDRESS, cell + WANTED_ADDRESS + 4);
      if (checkOf(this.views, ipVersion, words, 0, port) === check)
        taken.push({ port, address: ipVersion === 6 ? words : words[0] });
      // If a worker has just written another address there, it stays for the next time.
      Atomics.compareExchange(wanted, cell + CHECK, check, 0);
    }
    return taken;
  }

  get bell(): number {
    return Atomics.load(this.views.header, BELL);
  }

  /**
   * Waits, without blocking the event loop, until a worker wants a neighbour since `seen` was read,
   * or the timeout has passed.
   */
  async waitBell(seen: number, timeoutMs: number): Promise<void> {
    const wait = Atomics.waitAsync(this.views.header, BELL, seen, timeoutMs);
    if (wait.async) await wait.value;
  }
}

function ipVersionOf(address: RawAddress): 4 | 6 {
  return typeof address === 'number' ? 4 : 6;
}

/** A worker's side. */
export class NextHopReader {
  private readonly views: Views;
  /** The copy in use (`slots`) and the copy being made (`spare`). */
  private slots: Int32Array;
  private spare: Int32Array;
  private seen = -1;
  private wants = false;
  /** An IPv4 address as four words. */
  private readonly words = new Int32Array(4);

  constructor(buffer: SharedArrayBuffer, ports: number) {
    this.views = open(buffer, ports);
    this.slots = new Int32Array(this.views.slots.length);
    this.spare = new Int32Array(this.views.slots.length);
  }

  /**
   * Call once a batch. Returns whether the table changed. If so, slots found before are invalid.
   */
  refresh(): boolean {
    const { header, slots } = this.views;
    const version = Atomics.load(header, VERSION);
    if (version === this.seen || (version & 1) !== 0) return false;
    this.spare.set(slots);
    if (Atomics.load(header, VERSION) !== version) return false; // main began to write: next batch
    const fresh = this.spare;
    this.spare = this.slots;
    this.slots = fresh;
    this.seen = version;
    return true;
  }

  /** Slot of an IPv4 neighbour, or `NONE`. Valid until the next `refresh` that returns true. */
  find(port: number, address: number): number {
    const { slots } = this;
    const { mask } = this.views;
    const key = keyOf(port, 4);
    for (let slot = hashIpv4(address, port) & mask; ; slot = (slot + 1) & mask) {
      const at = slot * SLOT_WORDS;
      if (slots[at + KEY] === 0) return NONE;
      if (slots[at + ADDRESS] === address && slots[at + KEY] === key) return at;
    }
  }

  /**
   * Slot of the IPv6 neighbour whose address is at `words[at … at + 4)`, or `NONE`. Valid as in
   * `find`.
   */
  findIpv6(port: number, words: Int32Array, at: number): number {
    const { slots } = this;
    const { mask, k0, k1 } = this.views;
    const key = keyOf(port, 6);
    for (let slot = hashIpv6(k0, k1, words, at, port) & mask; ; slot = (slot + 1) & mask) {
      const found = slot * SLOT_WORDS;
      if (slots[found + KEY] === 0) return NONE;
      if (slots[found + KEY] === key && holds(slots, found, words, at)) return found;
    }
  }

  macLow(slot: number): number {
    return this.slots[slot + MAC_LOW];
  }

  macHigh(slot: number): number {
    return this.slots[slot + MAC_HIGH];
  }

  /** Asks main to resolve an IPv4 neighbour. */
  want(port: number, address: number): void {
    this.words[0] = address;
    this.ask(port, 4, this.words, 0);
  }

  /** Asks main to resolve the IPv6 neighbour whose address is at `words[at … at + 4)`. */
  wantIpv6(port: number, words: Int32Array, at: number): void {
    this.ask(port, 6, words, at);
  }

  private ask(port: number, ipVersion: 4 | 6, words: Int32Array, at: number): void {
    const { wanted } = this.views;
    const check = checkOf(this.views, ipVersion, words, at, port);
    const cell = (port * WANTED_CELLS + (check & (WANTED_CELLS - 1))) * WANTED_WORDS;
    if (wanted[cell + CHECK] === check) return; // already asked, and main has not taken it yet
    wanted[cell + IP_VERSION] = ipVersion;
    for (let word = 0; word < 4; word++) wanted[cell + WANTED_ADDRESS + word] = words[at + word];
    Atomics.store(wanted, cell + CHECK, check);
    this.wants = true;
  }

  /** Call once a batch: rings the bell if a neighbour was wanted. */
  flushWanted(): void {
    if (!this.wants) return;
    this.wants = false;
    Atomics.add(this.views.header, BELL, 1);
    Atomics.notify(this.views.header, BELL);
  }
}

/**
 * Next hops: which link-layer address an IPv4 neighbour on a port has. Main learns them; workers use them.
 *
 *     line 0   version   odd while main writes                        main writes, workers read
 *     line 1   bell      a worker wants a neighbour it does not know  workers add, main waits
 *     wanted   per port `WANTED_CELLS` addresses, 0 for none          workers write, main takes
 *     slots    2^n of: address, port + 1 (0: free), MAC bytes 0–3, MAC bytes 4–5
 *
 * **Reading** is a sequence lock taken once per batch and only when something changed: a worker loads `version`, and if it
 * is new and even copies all slots into memory of its own, loads `version` again, and uses the copy only if it is still the
 * same. So no packet ever meets a half-written entry, main may lay the slots out anew for every change, and a lookup
 * costs plain loads of the worker's own memory. (Loads are not reordered with loads on x86-64, nor is a builtin copy with
 * the atomic loads around it.)
 *
 * **Wanting** is a plain store into a cell chosen by the address: two workers, or two addresses, may overwrite each
 * other's, which costs the loser's next packet another drop and nothing else.
 */

import { NONE } from './none.js';
import { Region } from './region.js';
import { LINE, powerOfTwo, struct } from './struct.js';

const HEADER = struct({ version: LINE, bell: LINE });
const { version: VERSION, bell: BELL } = HEADER.at;
const SLOT = struct({ address: 1, port: 1, macLow: 1, macHigh: 1 });
const { address: ADDRESS, port: PORT, macLow: MAC_LOW, macHigh: MAC_HIGH } = SLOT.at;
const SLOT_WORDS = SLOT.words;
const WANTED_CELLS = 32;

export interface Neighbour {
  readonly port: number;
  /** Raw IPv4 address. */
  readonly address: number;
  /** MAC address: bytes 0–3 as a raw word, bytes 4–5 in the low half of another. */
  readonly mac: { readonly low: number; readonly high: number };
}

/** Shared memory for the next hops of `ports` ports, `neighbours` at most. */
export function createNextHops(ports: number, neighbours = 4096): SharedArrayBuffer {
  const slots = powerOfTwo(neighbours * 2);
  return new SharedArrayBuffer(HEADER.bytes + wantedWords(ports) * 4 + slots * SLOT.bytes);
}

function wantedWords(ports: number): number {
  return ports * WANTED_CELLS; // a whole number of cache lines
}

function firstSlot(address: number, port: number, mask: number): number {
  const hash = Math.imul(address ^ Math.imul(port, 0x85ebca6b), 0x9e3779b1);
  return (hash ^ (hash >>> 15)) & mask;
}

/** Finds in `slots` the slot of an address on a port, as a word index, or `NONE`. */
function find(slots: Int32Array, mask: number, port: number, address: number): number {
  for (let slot = firstSlot(address, port, mask); ; slot = (slot + 1) & mask) {
    const at = slot * SLOT_WORDS;
    if (slots[at + PORT] === 0) return NONE;
    if (slots[at + ADDRESS] === address && slots[at + PORT] === port + 1) return at;
  }
}

interface Views {
  header: Int32Array;
  wanted: Int32Array;
  slots: Int32Array;
  mask: number;
}

function open(buffer: SharedArrayBuffer, ports: number): Views {
  const region = new Region(buffer);
  const slots = region.i32(HEADER.bytes + wantedWords(ports) * 4);
  const count = slots.length / SLOT_WORDS;
  if (count !== powerOfTwo(count)) throw new RangeError(`next hop memory is not that of ${ports} ports`);
  return {
    header: region.i32(0, HEADER.words),
    wanted: region.i32(HEADER.bytes, wantedWords(ports)),
    slots,
    mask: count - 1,
  };
}

/** Main's side. */
export class NextHopWriter {
  private readonly views: Views;
  private content = '';

  constructor(buffer: SharedArrayBuffer, ports: number) {
    this.views = open(buffer, ports);
  }

  /** Most neighbours that are taken: half the slots stay free, so that a lookup ends soon. */
  get capacity(): number {
    return (this.views.mask + 1) / 2;
  }

  /**
   * Makes the table hold exactly these; a later one replaces an earlier one of the same port and address. Returns how many
   * did not fit. Workers see no change where there is none.
   */
  replace(neighbours: readonly Neighbour[]): number {
    const { header, slots, mask } = this.views;
    const next = new Int32Array(slots.length);
    let used = 0;
    let refused = 0;
    for (const { port, address, mac } of neighbours) {
      let slot = firstSlot(address, port, mask);
      while (next[slot * SLOT_WORDS + PORT] !== 0) {
        if (next[slot * SLOT_WORDS + ADDRESS] === address && next[slot * SLOT_WORDS + PORT] === port + 1) break;
        slot = (slot + 1) & mask;
      }
      const at = slot * SLOT_WORDS;
      if (next[at + PORT] === 0 && ++used > this.capacity) {
        refused++;
        continue;
      }
      next[at + ADDRESS] = address;
      next[at + PORT] = port + 1;
      next[at + MAC_LOW] = mac.low;
      next[at + MAC_HIGH] = mac.high & 0xffff;
    }
    const content = Buffer.from(next.buffer).toString('latin1');
    if (content === this.content) return refused;
    this.content = content;
    Atomics.add(header, VERSION, 1);
    slots.set(next);
    Atomics.add(header, VERSION, 1);
    return refused;
  }

  /** Takes every address that a worker wants. */
  takeWanted(): { port: number; address: number }[] {
    const { wanted } = this.views;
    const taken: { port: number; address: number }[] = [];
    for (let cell = 0; cell < wanted.length; cell++) {
      const address = Atomics.exchange(wanted, cell, 0);
      if (address !== 0) taken.push({ port: Math.floor(cell / WANTED_CELLS), address });
    }
    return taken;
  }

  get bell(): number {
    return Atomics.load(this.views.header, BELL);
  }

  /** Waits, without blocking the event loop, until a worker wants something since `seen` was read, or the time is up. */
  async waitBell(seen: number, timeoutMs: number): Promise<void> {
    const wait = Atomics.waitAsync(this.views.header, BELL, seen, timeoutMs);
    if (wait.async) await wait.value;
  }
}

/** A worker's side. */
export class NextHopReader {
  private readonly views: Views;
  /** The copy in use, and the one being made. */
  private slots: Int32Array;
  private spare: Int32Array;
  private seen = -1;
  private wants = false;

  constructor(buffer: SharedArrayBuffer, ports: number) {
    this.views = open(buffer, ports);
    this.slots = new Int32Array(this.views.slots.length);
    this.spare = new Int32Array(this.views.slots.length);
  }

  /** Once a batch. Returns whether the table changed, which voids every slot found before. */
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

  /** Slot of a neighbour, or `NONE`. Valid until the next `refresh` that returns true. */
  find(port: number, address: number): number {
    return find(this.slots, this.views.mask, port, address);
  }

  macLow(slot: number): number {
    return this.slots[slot + MAC_LOW];
  }

  macHigh(slot: number): number {
    return this.slots[slot + MAC_HIGH];
  }

  /** Asks main to find out about a neighbour. */
  want(port: number, address: number): void {
    const cell = port * WANTED_CELLS + (firstSlot(address, port, WANTED_CELLS - 1) & (WANTED_CELLS - 1));
    if (this.views.wanted[cell] === address) return; // asked already, and main has not come to it yet
    this.views.wanted[cell] = address;
    this.wants = true;
  }

  /** Once a batch: rings for what was wanted. */
  flushWanted(): void {
    if (!this.wants) return;
    this.wants = false;
    Atomics.add(this.views.header, BELL, 1);
    Atomics.notify(this.views.header, BELL);
  }
}

/**
 * What the NAT binding's hammers and their threads agree on: few hosts and few ports, so that
 * everything collides.
 */

import { natBinding, portAndProtocol } from '../../shm/objects/nat/nat-binding.js';
import { NAT_RECORD_WORDS } from '../../shm/objects/nat/nat-record.js';

export const EXTERNAL = 0x010200c0;
export const UDP = 17;
export const HAMMER_ID = 5;
export const HOSTS = 300;
export const FIRST_PORT = 2000;
export const LAST_PORT = 2399;

export const hammered = natBinding({
  addresses: [EXTERNAL],
  flows: 400,
  portRange: { first: FIRST_PORT, last: LAST_PORT },
  allocation: 'shared',
  // Some are withheld, and none is put out.
  halfOpen: 400,
  halfOpenRecords: 200,
});

/** The same, with few places for half-open bindings. */
export const flooded = natBinding({
  addresses: [EXTERNAL],
  flows: 400,
  portRange: { first: FIRST_PORT, last: LAST_PORT },
  allocation: 'shared',
  halfOpen: 30,
  halfOpenRecords: 20,
});

/** Every host has one endpoint, so that address and port can be checked against each other. */
export function endpointOf(host: number): number {
  return portAndProtocol(host * 7 + 1, UDP);
}

export interface HammerWork {
  readonly id: number;
  /** `worker` binds and refreshes; `receiver` applies `records` over and over. */
  readonly role: 'worker' | 'receiver';
  readonly region: SharedArrayBuffer;
  readonly journals: SharedArrayBuffer;
  /** Word 0: coarse seconds; word 1: not 0 when the threads are to end. */
  readonly control: SharedArrayBuffer;
  /** The worker's log; main reads it. */
  readonly ring: SharedArrayBuffer;
  readonly records: Int32Array;
  readonly lifetime: number;
  /** Of `flooded` bindings. */
  readonly flood: boolean;
  readonly seed: number;
}

/** What a thread tells at its end. */
export interface HammerCounts {
  readonly added: number;
  readonly refreshed: number;
  readonly applied: number;
  readonly refused: number;
  /** Reads that fitted together as no entry ever was. */
  readonly torn: number;
}

export class Draw {
  private state: number;

  constructor(seed: number) {
    this.state = seed;
  }

  below(n: number): number {
    this.state = (Math.imul(this.state, 1664525) + 1013904223) | 0;
    return (this.state >>> 8) % n;
  }
}

/** Records another site could have sent: bindings of the same hosts to the same ports. */
export function foreignRecords(count: number, now: number, lifetime: number, draw: Draw): Int32Array {
  const records = new Int32Array(new SharedArrayBuffer(count * NAT_RECORD_WORDS * 4));
  for (let i = 0; i < count; i++) {
    const host = draw.below(HOSTS);
    const port = FIRST_PORT + draw.below(LAST_PORT - FIRST_PORT + 1);
    const generation = now + draw.below(20);
    records.set(
      [
        ...[host, endpointOf(host), EXTERNAL, port, generation],
        ...[((1 + draw.below(30)) << 8) | draw.below(4), generation + lifetime],
      ],
      i * NAT_RECORD_WORDS,
    );
  }
  return records;
}

/**
 * What the driver's tests do with frames: send them back where they came from, or out by the other
 * port.
 */

import { fileURLToPath } from 'node:url';
import type { AfXdpDriver } from '../../../workers/drivers/af-xdp.js';
import { Batch, DROPPED } from '../../../workers/packet/batch.js';
import type { Veth } from '../native/veth.js';

const CLIENT = fileURLToPath(new URL('./udp-client.js', import.meta.url));
const ETHERTYPE_IPV4 = 0x0008; // as it lies in memory, read little-endian
export const PATIENCE_MS = 30_000;

/** Starts udp-client.ts beside the far end of a pair. Resolves with what it wrote. */
export function client(veth: Veth, mode: 'send' | 'echo', count: number, bytes: number): Promise<string> {
  return veth.start(process.execPath, CLIENT, mode, veth.other, `${count}`, `${bytes}`);
}

export function batchFor(driver: AfXdpDriver): Batch {
  return new Batch(driver.memory, new Float64Array(1));
}

/**
 * Turns an IPv4 UDP frame around: every checksum stays right when sides change places. False for
 * other frames.
 */
export function turnAround(batch: Batch, i: number): boolean {
  const { u16, i32 } = batch.memory;
  const at = batch.start[i] >>> 1;
  if (u16[at + 6] !== ETHERTYPE_IPV4) return false;
  for (let word = 0; word < 3; word++) {
    const mac = u16[at + word];
    u16[at + word] = u16[at + 3 + word];
    u16[at + 3 + word] = mac;
  }
  const l3 = (batch.start[i] + 14) >>> 2;
  const source = i32[l3 + 3];
  i32[l3 + 3] = i32[l3 + 4];
  i32[l3 + 4] = source;
  i32[l3 + 5] = (i32[l3 + 5] << 16) | (i32[l3 + 5] >>> 16);
  return true;
}

/**
 * Serves until `frames` IPv4 frames came, or the patience is over. `egress` says where each goes.
 * Returns how many came.
 */
export function serve(
  driver: AfXdpDriver,
  batch: Batch,
  frames: number,
  egress: (i: number) => number,
  patienceMs = PATIENCE_MS,
): number {
  const deadline = performance.now() + patienceMs;
  let served = 0;
  while (served < frames && performance.now() < deadline) {
    if (driver.receive(batch) === 0) {
      driver.wait(50);
      continue;
    }
    for (let i = 0; i < batch.count; i++) {
      batch.egress[i] = egress(i);
      if (batch.egress[i] !== DROPPED) served++;
    }
    driver.transmit(batch);
  }
  return served;
}

/** Serves as an echo server. */
export function echo(driver: AfXdpDriver, batch: Batch, frames: number): number {
  return serve(driver, batch, frames, (i) => (turnAround(batch, i) ? batch.port[i] : DROPPED));
}

/**
 * The af_xdp driver alone, doing what l2fwd.c does: `node af-xdp-forward.js INTERFACE INTERFACE
 * MODE RING_SIZE MAC MAC`. Writes "ready" and runs until it is killed.
 */

import { writeSync } from 'node:fs';
import { AfXdpDriver } from '../../workers/drivers/af-xdp.js';
import type { XdpMode } from '../../workers/drivers/xdp-attach.js';
import { interfaceFacts } from '../../workers/native/index.js';
import { Batch, DROPPED } from '../../workers/packet/batch.js';
import { Idle } from '../../workers/plane/idle.js';

const [first, second, mode, ringSize, ...macs] = process.argv.slice(2);
const names = [first, second];
const driver = new AfXdpDriver({
  ports: names.map((name) => ({ interface: name, mode: mode as XdpMode })),
  ringSize: Number(ringSize),
});
const batch = new Batch(driver.memory, new Float64Array(1));
const idle = new Idle(driver, 'sleep');

/** Both link-layer addresses of the frames that each port sends, as 16-bit words. */
const headers = names.map((name, i) => {
  const bytes = [...macs[i].split(':').map((byte) => Number.parseInt(byte, 16)), ...interfaceFacts(name).mac];
  return new Uint16Array(Uint8Array.from(bytes).buffer);
});

/**
 * Decrements the time to live and updates the header checksum (RFC 1624). Returns false if the
 * packet ends here.
 */
function hop(at: number): boolean {
  const { u16 } = batch.memory;
  if (u16[at + 6] !== 0x0008) return true;
  const timeToLive = u16[at + 11];
  if ((timeToLive & 0xff) <= 1) return false;
  u16[at + 11] = timeToLive - 1;
  const sum = u16[at + 12] + 1; // a byte of the network's high half is the low one here
  u16[at + 12] = sum + (sum >>> 16);
  return true;
}

function round(): number {
  const count = driver.receive(batch);
  if (count === 0) return 0;
  const { start, port, egress } = batch;
  const { u16 } = batch.memory;
  for (let i = 0; i < count; i++) {
    const out = 1 - port[i];
    const header = headers[out];
    const at = start[i] >>> 1;
    for (let word = 0; word < 6; word++) u16[at + word] = header[word];
    egress[i] = hop(at) ? out : DROPPED;
  }
  driver.transmit(batch);
  return count;
}

writeSync(1, 'ready\n');
for (;;) idle.after(round());

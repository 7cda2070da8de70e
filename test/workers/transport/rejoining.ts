/**
 * A program for a network namespace of its own: sends state messages to itself by multicast, by
 * interface `m0`, which it deletes and creates again.
 * Writes a word each time messages arrive (again).
 */

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { EVERYONE } from '../../../workers/replication/sending/outlet.js';
import { replicationSettings } from '../../../workers/replication/settings.js';
import { receiveTransport, sendTransport } from '../../../workers/transport/open.js';
import { sleep } from '../replication/test-instance.js';

const ADDRESS = '192.0.2.1';
/**
 * Memberships that the kernel lets a socket have: fewer than the times the interface is created.
 */
const MEMBERSHIPS = 3;
const TIMES = 5;

function create(): void {
  execFileSync('ip', ['link', 'add', 'm0', 'type', 'veth', 'peer', 'name', 'm1']);
  execFileSync('ip', ['address', 'add', `${ADDRESS}/24`, 'dev', 'm0']);
  for (const end of ['m0', 'm1']) execFileSync('ip', ['link', 'set', end, 'up']);
}

writeFileSync('/proc/sys/net/ipv4/igmp_max_memberships', `${MEMBERSHIPS}`);
create();
const settings = replicationSettings({
  clusterId: 1,
  self: 1,
  members: [{ id: 1, name: 'a', address: ADDRESS, port: 7000 }],
  transport: { kind: 'multicast', group: '239.1.2.3', port: 7000, interface: ADDRESS, ttl: 1, loopback: true },
});
const sender = sendTransport(settings, 2);
const receiver = receiveTransport(settings, 2);
let received = 0;
await receiver.open(() => received++);
await sender.open();

/** Sends to the group of object 1 until something arrives. */
async function untilReceived(): Promise<void> {
  received = 0;
  while (received === 0) {
    const datagram = sender.claim();
    if (datagram !== null) sender.send(datagram, 10, 1, EVERYONE, 0, 0);
    await sleep(20);
  }
}

await untilReceived();
console.log('first');
for (let n = 0; n < TIMES; n++) {
  execFileSync('ip', ['link', 'delete', 'm0']);
  create();
  await untilReceived();
  console.log('another');
}
await Promise.all([sender.close(), receiver.close()]);

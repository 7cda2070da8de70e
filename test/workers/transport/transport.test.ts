import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { EVERYONE } from '../../../workers/replication/sending/outlet.js';
import { type ReplicationOptions, replicationSettings } from '../../../workers/replication/settings.js';
import { FaultyReceiver, seeded } from '../../../workers/transport/fault.js';
import { groupOf } from '../../../workers/transport/multicast.js';
import { receiveTransport, sendTransport } from '../../../workers/transport/open.js';
import type { OnDatagram, ReceiveTransport } from '../../../workers/transport/transport.js';
import { freePort } from '../../support/ports.js';
import { needs } from '../../support/require.js';
import { sleep } from '../replication/test-instance.js';

async function options(address: string, count: number): Promise<ReplicationOptions> {
  const members: ReplicationOptions['members'][number][] = [];
  for (let i = 0; i < count; i++) members.push({ id: i + 1, name: `m${i}`, address, port: await freePort(address) });
  return { clusterId: 1, self: 1, members };
}

/** What arrives at a receiver, as text. */
async function listen(receiver: ReceiveTransport): Promise<string[]> {
  const got: string[] = [];
  await receiver.open((datagram) => got.push(Buffer.from(datagram).toString()));
  return got;
}

async function untilCount(list: readonly string[], count: number): Promise<void> {
  for (let i = 0; i < 500 && list.length < count; i++) await sleep(5);
}

describe('unicast', () => {
  for (const address of ['127.0.0.1', '::1'])
    it(`sends to one member, all, or all but some, by ${address}`, async () => {
      const base = await options(address, 3);
      const sender = sendTransport(replicationSettings(base), 2);
      const receivers = [2, 3].map((self) => receiveTransport(replicationSettings({ ...base, self }), 2));
      const [two, three] = await Promise.all(receivers.map(listen));
      await sender.open();
      const say = (text: string, member: number, spareLow = 0): void => {
        const datagram = sender.claim();
        assert.ok(datagram !== null);
        datagram.bytes.set(Buffer.from(text));
        sender.send(datagram, text.length, 1, member, spareLow, 0);
      };
      say('to some', EVERYONE, 1 << 1);
      say('to nobody', EVERYONE, 0b110);
      say('to all', EVERYONE);
      say('to one', 2);
      await untilCount(two, 1);
      await untilCount(three, 3);
      assert.deepEqual(two, ['to all']);
      assert.deepEqual(three, ['to some', 'to all', 'to one']);
      assert.ok(receivers[0].bufferBytes > 0);
      await Promise.all([sender, ...receivers].map((transport) => transport.close()));
    });

  it('counts what the network refuses, runs out of memory rather than of bounds, and recovers', async () => {
    const base = await options('127.0.0.1', 2);
    // A broadcast address needs a permission that the socket does not ask for: EACCES.
    const members = [base.members[0], { ...base.members[1], address: '255.255.255.255' }];
    const sender = sendTransport(replicationSettings({ ...base, members }), 1);
    await sender.open();
    let claimed = 0;
    for (let datagram = sender.claim(); datagram !== null; datagram = sender.claim()) {
      claimed++;
      sender.send(datagram, 10, 0, EVERYONE, 0, 0);
    }
    assert.equal(claimed, 256);
    await sleep(50);
    assert.equal(sender.errors, 256);
    assert.ok(sender.claim() !== null);
    await sender.close();
  });
});

describe('multicast', () => {
  it('gives every object its own group', () => {
    assert.equal(groupOf('239.83.1.250', 10), '239.83.2.4');
    assert.equal(groupOf('ff15::1:9%lo', 7), 'ff15::1:10%lo');
    assert.equal(groupOf('ff15::', 1), 'ff15::1');
    assert.throws(() => groupOf('239.255.255.255', 1), /object 1 after 239.255.255.255/);
    assert.throws(() => groupOf('10.0.0.1', 0), /not in 224/);
    assert.throws(() => groupOf('fd00::1', 0), /no IPv6 multicast/);
  });

  it('reaches all listeners of the group, and those of no other', async () => {
    const base = await options('127.0.0.1', 3);
    const port = await freePort('127.0.0.1');
    const transport = {
      kind: 'multicast',
      group: '239.83.7.1',
      port,
      interface: '127.0.0.1',
      ttl: 0,
      loopback: true,
    } as const;
    const sender = sendTransport(replicationSettings({ ...base, transport }), 2);
    const one = receiveTransport(replicationSettings({ ...base, transport, self: 2 }), 1);
    const both = receiveTransport(replicationSettings({ ...base, transport, self: 3 }), 2);
    const [first, second] = await Promise.all([one, both].map(listen));
    await sender.open();
    for (const object of [0, 1]) {
      const datagram = sender.claim();
      assert.ok(datagram !== null);
      datagram.bytes.set(Buffer.from(`object ${object}`));
      sender.send(datagram, 8, object, EVERYONE, 0, 0);
    }
    await untilCount(second, 2);
    await sleep(20);
    assert.deepEqual(first, ['object 0']);
    assert.deepEqual(second.toSorted(), ['object 0', 'object 1']);
    await Promise.all([sender, one, both].map((each) => each.close()));
  });
});

describe('multicast, to one member', () => {
  for (const [address, group] of [
    ['127.0.0.1', '239.83.7.9'],
    ['::1', '239.83.7.9'],
  ])
    it(`reaches that member alone, at ${address}`, async () => {
      const base = await options(address, 3);
      const port = await freePort('127.0.0.1');
      const transport = { kind: 'multicast', group, port, interface: '127.0.0.1', ttl: 0, loopback: true } as const;
      const sender = sendTransport(replicationSettings({ ...base, transport }), 1);
      const receivers = [2, 3].map((self) => receiveTransport(replicationSettings({ ...base, transport, self }), 1));
      const [two, three] = await Promise.all(receivers.map(listen));
      await sender.open();
      for (const [text, member] of [
        ['to one', 1],
        ['to the other', 2],
        ['to all', EVERYONE],
      ] as const) {
        const datagram = sender.claim();
        assert.ok(datagram !== null);
        datagram.bytes.set(Buffer.from(text));
        sender.send(datagram, text.length, 0, member, 0, 0);
      }
      await untilCount(two, 2);
      await untilCount(three, 2);
      await sleep(20);
      assert.deepEqual(two.toSorted(), ['to all', 'to one']);
      assert.deepEqual(three.toSorted(), ['to all', 'to the other']);
      await Promise.all([sender, ...receivers].map((each) => each.close()));
    });
});

describe('multicast by an interface that is deleted and created again', function () {
  this.timeout(60_000);

  before(function () {
    needs(this, 'netns', 'tool:ip', 'tool:unshare');
  });

  it('goes on, also after more times than the kernel lets a socket be a member', () => {
    const program = fileURLToPath(new URL('rejoining.js', import.meta.url));
    const output = execFileSync('unshare', ['-n', process.execPath, program], { encoding: 'utf8', timeout: 50_000 });
    assert.deepEqual(output.trim().split('\n'), ['first', ...Array.from({ length: 5 }, () => 'another')]);
  });
});

describe('injected faults', () => {
  class Source implements ReceiveTransport {
    errors = 0;
    bufferBytes = 1;
    deliver: (datagram: Uint8Array) => void = () => {};
    async open(onDatagram: OnDatagram): Promise<void> {
      this.deliver = (datagram) => onDatagram(datagram, '192.0.2.7');
    }
    async close(): Promise<void> {}
  }

  async function pass(seed: number): Promise<{ got: number[]; faulty: FaultyReceiver }> {
    const source = new Source();
    const faulty = new FaultyReceiver(source, { seed, loss: 0.1, duplicate: 0.1, delay: 0.2, delayMsMax: 20 });
    const got: number[] = [];
    await faulty.open((datagram) => got.push(datagram[0] + 256 * datagram[1]));
    for (let i = 0; i < 2000; i++) source.deliver(Uint8Array.of(i & 255, i >> 8));
    await sleep(60);
    await faulty.close();
    return { got, faulty };
  }

  it('are as frequent as asked, and the same for the same seed', async () => {
    const [a, b] = await Promise.all([pass(1), pass(1)]);
    assert.deepEqual(
      a.got.toSorted((x, y) => x - y),
      b.got.toSorted((x, y) => x - y),
    );
    assert.ok(a.faulty.lost > 150 && a.faulty.lost < 300);
    assert.ok(a.faulty.duplicated > 150 && a.faulty.duplicated < 250);
    assert.ok(a.faulty.delayed > 300 && a.faulty.delayed < 500);
    assert.equal(a.got.length, 2000 + a.faulty.duplicated - a.faulty.lost);
    assert.ok(
      a.got.some((value, i) => i > 0 && value < a.got[i - 1]),
      'some come out of order',
    );
    const random = seeded(7);
    for (let i = 0; i < 1000; i++) {
      const value = random();
      assert.ok(value >= 0 && value < 1);
    }
  });
});

import { strict as assert } from 'node:assert';
import { packetKeys } from '../../../workers/packet/keys.js';
import { isError, Quoted } from '../../../workers/packet/quoted.js';
import { errorAbout, frame } from '../support/frames.js';
import { frame6, icmpv6Error } from '../support/frames6.js';
import { Plane } from '../support/plane.js';

/** Runs `look` over one packet on a wire. */
function looking<T>(bytes: Uint8Array, look: (plane: Plane) => T): T {
  const plane = new Plane({ route: null });
  let found: T | undefined;
  plane.open([
    () => {
      found = look(plane);
    },
  ]);
  plane.passFrames({ port: 0, frame: bytes });
  assert.ok(found !== undefined);
  return found;
}

const key = (plane: Plane, which: 'ipv4' | 'ipv4Reply' | 'ipv6' | 'ipv6Reply', words: number): number[] => {
  const out = new Int32Array(words + 2);
  packetKeys(plane.batch)[which](0, out, 1);
  assert.deepEqual([out[0], out[words + 1]], [0, 0], 'nothing beside it is written');
  return [...out.subarray(1, words + 1)];
};

const quotedKeys = (bytes: Uint8Array, words: number): [number[], number[]] | null =>
  looking(bytes, ({ batch }) => {
    const quoted = new Quoted();
    const out = [new Int32Array(words), new Int32Array(words)];
    if (!quoted.find(batch, 0)) return { keys: null };
    quoted.key(out[0], 0);
    quoted.replyKey(out[1], 0);
    return { keys: [[...out[0]], [...out[1]]] as [number[], number[]] };
  }).keys;

describe('packet/keys', () => {
  it('are the same for a packet and, as its reply, for what answers it', () => {
    const there = looking(frame('udp 10.0.0.5:4000 > 8.8.8.8:53'), (plane) => key(plane, 'ipv4', 4));
    const back = looking(frame('udp 8.8.8.8:53 > 10.0.0.5:4000'), (plane) => key(plane, 'ipv4Reply', 4));
    assert.deepEqual(there, back);
    assert.deepEqual(there, [0x0500000a, 0x08080808, 0x3500a00f, 17]);
    const there6 = looking(frame6('tcp 2001:db8::5 4000 > fd00::8 53'), (plane) => key(plane, 'ipv6', 10));
    const back6 = looking(frame6('tcp fd00::8 53 > 2001:db8::5 4000'), (plane) => key(plane, 'ipv6Reply', 10));
    assert.deepEqual(there6, back6);
    assert.deepEqual(there6, [0xb80d0120 | 0, 0, 0, 0x05000000, 0xfd, 0, 0, 0x08000000, 0x3500a00f, 6]);
  });

  it('of what an ICMP error quotes are those of the packet it is about', () => {
    const about = frame6('udp 2001:db8::5 4000 > fd00::8 53 len 20');
    const forward = looking(about, (plane) => [key(plane, 'ipv6', 10), key(plane, 'ipv6Reply', 10)]);
    assert.deepEqual(quotedKeys(icmpv6Error('fd00::1', '2001:db8::5', 1, about), 10), forward);
    const ping = frame6('icmp 2001:db8::5 > fd00::8 echo 77');
    const echo = looking(ping, (plane) => [key(plane, 'ipv6', 10), key(plane, 'ipv6Reply', 10)]);
    assert.deepEqual(quotedKeys(icmpv6Error('fd00::1', '2001:db8::5', 3, ping), 10), echo);
  });

  it('contain the link, that of the error for what it quotes', () => {
    const tagged = frame('udp 10.0.0.5:4000 > 8.8.8.8:53 vlan 5.7');
    const link = 5 * 4096 + 7;
    assert.deepEqual(looking(tagged, (plane) => key(plane, 'ipv4', 4))[3], 17 | (link << 8));
    const about = frame('udp 10.0.0.5:4000 > 8.8.8.8:53');
    const error = errorAbout('icmp 8.8.4.4 > 10.0.0.5 type 3 vlan 5.7', 'udp 10.0.0.5:4000 > 8.8.8.8:53');
    const keys = looking(tagged, (plane) => [key(plane, 'ipv4', 4), key(plane, 'ipv4Reply', 4)]);
    assert.deepEqual(quotedKeys(error, 4), keys);
    assert.notDeepEqual(
      looking(about, (plane) => key(plane, 'ipv4', 4)),
      keys[0],
    );
  });

  it('are not found where too little is quoted, or a later fragment', () => {
    const about = frame6('udp 2001:db8::5 4000 > fd00::8 53 len 20');
    for (const bytes of [0, 39, 47])
      assert.equal(quotedKeys(icmpv6Error('fd00::1', '2001:db8::5', 1, about, bytes), 10), null);
    assert.ok(quotedKeys(icmpv6Error('fd00::1', '2001:db8::5', 1, about, 48), 10) !== null);
    const later = frame6('udp 2001:db8::5 4000 > fd00::8 53 len 24 offset 64');
    assert.equal(quotedKeys(icmpv6Error('fd00::1', '2001:db8::5', 1, later), 10), null);
    assert.equal(quotedKeys(icmpv6Error('fd00::1', '2001:db8::5', 1, about.slice(0, 15)), 10), null);
  });

  it('tell errors from queries, by version', () => {
    assert.deepEqual(
      [1, 3, 11, 12, 8, 0].map((type) => isError(type)),
      [false, true, true, true, false, false],
    );
    assert.deepEqual(
      [1, 2, 3, 4, 127, 128, 135].map((type) => isError(type, 6)),
      [true, true, true, true, true, false, false],
    );
  });
});

import { strict as assert } from 'node:assert';
import { NONE } from '../../../shm/none.js';
import {
  NAT_BIND,
  type NatBinding,
  natBinding,
  portAndProtocol,
  Rank,
  Refusal,
} from '../../../shm/objects/nat-binding.js';
import { Applied } from '../../../shm/objects/object.js';
import { Replica } from './replica.js';

const TCP = 6;
const UDP = 17;
const NOW = 70_000_000;
const EXTERNAL = 0x010200c0;

function swap(port: number): number {
  return ((port & 0xff) << 8) | (port >>> 8);
}

/** A host-order port with its protocol, as the object wants it. */
function endpoint(port: number, protocol = UDP): number {
  return portAndProtocol(swap(port), protocol);
}

function bind(object: NatBinding, address: number, port: number, now = NOW, protocol = UDP, lifetime = 300): number {
  const key = endpoint(port, protocol);
  return object.add(object.hash(address, key), address, key, now, now + lifetime);
}

function find(object: NatBinding, address: number, port: number, now = NOW, protocol = UDP): number {
  const key = endpoint(port, protocol);
  return object.findOutbound(object.hash(address, key), address, key, now);
}

function findInbound(object: NatBinding, port: number, now = NOW, protocol = UDP): number {
  return object.findInbound(object.place(EXTERNAL, swap(port), protocol), now);
}

const definition = natBinding({ addresses: [EXTERNAL], flows: 1000, allocation: 'leased' });

describe('nat binding', () => {
  it('binds an endpoint and finds it from both sides', () => {
    const { object } = new Replica(definition);
    const slot = bind(object, 0x0100000a, 40_001);
    assert.notEqual(slot, NONE);
    assert.equal(find(object, 0x0100000a, 40_001), slot);
    assert.equal(object.externalAddress(slot), EXTERNAL);
    const port = swap(object.externalPort(slot));
    assert.ok(port >= 1024);
    assert.equal(port & 1, 1, 'parity is kept');
    assert.equal(findInbound(object, port), slot);
    assert.equal(object.internalAddress(slot), 0x0100000a);
    assert.equal(object.internalPort(slot), swap(40_001));
    assert.equal(findInbound(object, port, NOW, TCP), NONE, 'another protocol is another port');
    assert.equal(find(object, 0x0100000a, 40_001, NOW, TCP), NONE);
    assert.equal(bind(object, 0x0100000a, 40_001), slot, 'bound already');
    assert.equal(find(object, 0x0100000a, 40_001, NOW + 300), NONE, 'expired');
    assert.equal(findInbound(object, port, NOW + 300), NONE);
  });

  it('replicates by one record', () => {
    const a = new Replica(definition, 0, 2);
    const b = new Replica(definition, 1, 2);
    const slot = bind(a.object, 5, 4000);
    const records = a.drain();
    assert.equal(records.length, 1);
    assert.equal(records[0].op, NAT_BIND);
    assert.ok(records[0].words.length <= 7);
    assert.equal(b.apply(records[0], NOW), Applied.CHANGED);
    assert.equal(b.apply(records[0], NOW), Applied.UNCHANGED);
    const there = find(b.object, 5, 4000);
    assert.equal(b.object.externalPort(there), a.object.externalPort(slot));
    assert.equal(a.object.digest(NOW), b.object.digest(NOW));
    assert.equal(a.object.refusal, Refusal.NONE);
    assert.equal(a.object.rank(slot), Rank.NEW);
  });
});

/** Membership through a real etcd: places, leases, and etcd itself going away. */

import { strict as assert } from 'node:assert';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { createLog } from '../../../daemon/base/log.js';
import { CompactedError } from '../../../daemon/membership/etcd-client.js';
import { EtcdMembers, type Registration, register } from '../../../daemon/membership/etcd-members.js';
import { decodeRecord, encodeRecord, type SlotRecord } from '../../../daemon/membership/etcd-record.js';
import { Records, rootOf } from '../../../daemon/membership/etcd-records.js';
import { Roster } from '../../../daemon/membership/roster.js';
import { createMemberTable, MemberTable, MemberTableWriter, Role, type SlotEntry } from '../../../shm/members.js';
import { Etcd } from '../../support/etcd.js';
import { needs } from '../../support/require.js';

const SLOTS = 8;
const TTL_S = 2;
const WAIT_MS_MAX = 15_000;

async function until(what: string, holds: () => boolean): Promise<void> {
  const end = performance.now() + WAIT_MS_MAX;
  while (!holds()) {
    if (performance.now() > end) assert.fail(`never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** One instance's membership, without the instance. */
class Site {
  readonly registration: Registration;
  readonly table: MemberTable;
  readonly members: EtcdMembers;
  readonly evicted: string[] = [];
  /** Incarnations that are heard on the state channel, by slot. */
  readonly heard = new Map<number, number>();
  over: Error | null = null;

  constructor(registration: Registration) {
    this.registration = registration;
    const buffer = createMemberTable(SLOTS);
    const { name, id, slot } = registration;
    const own: SlotEntry = { role: Role.MEMBER, id, name, address: addressOf(name), port: 7400, dead: 0 };
    new MemberTableWriter(buffer).write(
      0,
      Array.from({ length: slot + 1 }, (_, i) => (i === slot ? own : EMPTY)),
    );
    this.table = new MemberTable(buffer);
    this.members = new EtcdMembers({
      registration,
      roster: new Roster(buffer, slot),
      log: createLog('info', 'json', { write: (line) => void lines.push(line) }),
      heard: (slot) => this.heard.get(slot) ?? 0,
      onEvicted: (member) => this.evicted.push(member.name),
      onOver: (error) => {
        this.over = error;
      },
    });
    sites.push(this);
  }

  /** Names of those that take part, by what this site has in its table. */
  get names(): string[] {
    this.table.refresh();
    return Array.from({ length: SLOTS }, (_, slot) => slot)
      .filter((slot) => this.table.isMember(slot))
      .map((slot) => this.table.name(slot))
      .sort();
  }

  entryOf(name: string): SlotEntry | undefined {
    this.table.refresh();
    return Array.from({ length: SLOTS }, (_, slot) => this.table.entry(slot)).find((entry) => entry.name === name);
  }

  /** As a crash: nothing is told to anybody. */
  crash(): void {
    this.members.close();
  }
}

const EMPTY: SlotEntry = { role: Role.EMPTY, id: 0, name: '', address: '', port: 0, dead: 0 };
const addressOf = (name: string): string => `10.0.1.${name.charCodeAt(0)}`;

let sites: Site[] = [];
let lines: string[] = [];

describe('membership by etcd', () => {
  let etcd: Etcd;
  let cluster = '';
  let clusters = 0;

  before(async function () {
    needs(this, 'tool:etcd');
    etcd = await Etcd.start();
  });

  beforeEach(() => {
    cluster = `test/${++clusters}`;
    sites = [];
    lines = [];
  });

  afterEach(function () {
    if (this.currentTest?.state === 'failed') console.log(lines.join(''));
    for (const site of sites) site.members.close();
  });

  after(async () => {
    await etcd?.down();
  });

  const stop = new AbortController().signal;

  interface More {
    incarnation?: number;
    slots?: number;
    address?: string;
    endpoint?: string;
  }

  function place(name: string, more: More = {}) {
    const { incarnation = Date.now(), slots = SLOTS, address = addressOf(name), endpoint = etcd.endpoint } = more;
    const config = { endpoints: ['http://127.0.0.1:1', endpoint], prefix: '/ct', lease_ttl_s: TTL_S };
    const log = createLog('info', 'json', { write: (line) => void lines.push(line) });
    return register(config, cluster, { name, address, port: 7400, incarnation, slots }, { log, signal: stop });
  }

  const join = async (name: string, incarnation?: number): Promise<Site> =>
    new Site(await place(name, incarnation === undefined ? {} : { incarnation }));

  it('gives everybody an id and a slot of its own, also when all start at once', async () => {
    const names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    const all = await Promise.all(names.map((name) => join(name)));
    assert.deepEqual(all.map(({ registration }) => registration.id).sort(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert.deepEqual(all.map(({ registration }) => registration.slot).sort(), [0, 1, 2, 3, 4, 5, 6, 7]);
    for (const site of all)
      await until('everybody sees all', () => JSON.stringify(site.names) === JSON.stringify(names));
    const views = all.map(({ table }) => table.view);
    assert.equal(new Set(views).size, 1, `the view is etcd’s revision: ${views}`);
    for (const site of all)
      assert.deepEqual(
        names.map((name) => site.entryOf(name)),
        names.map((name) => all[0].entryOf(name)),
      );
  });

  it('has a lease that lapses seen by the others as a crash of that life; the next life has the same place', async () => {
    const [a, b] = [await join('a'), await join('b', 5000)];
    await until('both see both', () => [a, b].every(({ names }) => names.length === 2));
    const { id, slot } = b.registration;
    b.crash();
    await until('the lease lapses', () => a.names.length === 1);
    assert.deepEqual([a.entryOf('b')?.role, a.entryOf('b')?.dead, a.evicted], [Role.EVICTED, 5000, ['b']]);
    const again = await join('b', 4000);
    assert.deepEqual([again.registration.id, again.registration.slot], [id, slot]);
    assert.ok(again.registration.incarnation > 5000, 'a clock that went back makes no earlier life');
    await until('it is seen', () => a.names.length === 2);
    assert.equal(a.entryOf('b')?.dead, 5000);
  });

  it('has who leaves in order leave at once; its slot is for others when there is no other', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await until('both see both', () => a.names.length === 2);
    await b.members.left();
    await until('it is gone', () => a.names.length === 1);
    assert.equal(a.entryOf('b')?.role, Role.LEFT);
    assert.deepEqual(a.evicted, []);
    for (const name of ['c', 'd', 'e', 'f', 'g', 'h']) await join(name);
    const last = await join('i');
    assert.equal(last.registration.slot, b.registration.slot);
    assert.equal(last.registration.id, 9, 'an id is never given twice');
  });

  it('lets no second instance have the name of one that lives, nor one with other slots or its address', async () => {
    const a = await join('a', 1000);
    const second = place('a', { incarnation: 2000 });
    await until('it says so', () => lines.some((line) => line.includes('waiting for its lease to lapse')));
    assert.deepEqual(a.registration.incarnation, 1000);
    await a.members.left();
    assert.equal((await second).incarnation, 2000);
    await assert.rejects(place('b', { slots: 4 }), /cluster\.slots is 4 here, and 8 at the members/);
    await assert.rejects(place('b', { address: '10.0.1.97' }), /address 10\.0\.1\.97 is already that of member a/);
  });

  it('has operators evict and remove; who is evicted learns that its life is over', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await until('both see both', () => [a, b].every(({ names }) => names.length === 2));
    await assert.rejects(a.members.remove('b'), /b is alive: drain it and shut it down first, or evict it/);
    await assert.rejects(a.members.evict('a'), /a is this instance/);
    await assert.rejects(a.members.evict('x'), /no member is called x/);
    await assert.rejects(a.members.add(), /takes its place itself/);
    await a.members.evict('b');
    await until('b learns of it', () => b.over !== null);
    assert.match(String(b.over), /was declared over/);
    await until('a sees it', () => a.entryOf('b')?.role === Role.EVICTED);
    await a.members.remove('b');
    await until('a sees it', () => a.entryOf('b')?.role === Role.LEFT);
    const again = await join('b');
    assert.equal(again.registration.slot, b.registration.slot);
    await until('it is back', () => a.names.length === 2);
  });

  it('goes on with the last list while etcd is away, and with etcd when it is back', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await until('both see both', () => [a, b].every(({ names }) => names.length === 2));
    await etcd.kill();
    await until('both miss it', () => [a, b].every(({ members }) => members.describe().includes('not followed')));
    await assert.rejects(a.members.evict('b'), /etcd cannot be reached/);
    assert.deepEqual(
      [a.names, b.names],
      [
        ['a', 'b'],
        ['a', 'b'],
      ],
    );
    await etcd.up();
    await until('both have it', () => [a, b].every(({ members }) => !members.describe().includes('not followed')));
    const c = await join('c');
    await until('all see all', () => [a, b, c].every(({ names }) => names.length === 3));
    assert.deepEqual([a.evicted, b.evicted], [[], []], 'nobody’s lease lapsed meanwhile');
  });

  it('gives a life whose lease lapsed its place again, if nobody declared it over', async () => {
    const [a, b] = [await join('a'), await join('b')];
    await until('both see both', () => [a, b].every(({ names }) => names.length === 2));
    await etcd.client.revoke(b.registration.lease);
    await until('it has a new lease', () => lines.some((line) => line.includes('it has a new one')));
    await until('all see it', () => a.names.length === 2);
    assert.equal(b.over, null);
  });

  it('keeps a member that is heard though its lease lapsed, and evicts it once it is not', async () => {
    const [a, b] = [await join('a'), await join('b', 5000)];
    await until('both see both', () => [a, b].every(({ names }) => names.length === 2));
    a.heard.set(b.registration.slot, 5000);
    b.crash();
    await until('it is kept', () => a.members.describe().includes('kept though etcd does not list them as alive: b'));
    assert.deepEqual([a.names, a.evicted], [['a', 'b'], []]);
    a.heard.delete(b.registration.slot);
    await until('it is evicted', () => a.names.length === 1);
    assert.deepEqual(a.evicted, ['b']);
  });

  it('has living members write what an etcd restored empty has lost, before a newcomer takes a place', async () => {
    const [a, b] = [await join('a', 1000), await join('b', 2000)];
    await until('both see both', () => [a, b].every(({ names }) => names.length === 2));
    a.heard.set(b.registration.slot, 2000);
    b.heard.set(a.registration.slot, 1000);
    await etcd.restore('nothing');
    const [c, d] = await Promise.all([join('c', 3000), join('d', 4000)]);
    await until('all see all', () => [a, b, c, d].every(({ names }) => names.join() === 'a,b,c,d'));
    assert.deepEqual([a.over, b.over, c.over, d.over, a.evicted, b.evicted], [null, null, null, null, [], []]);
    const places = [a, b, c, d].map(({ registration }) => registration);
    assert.deepEqual(places.map(({ slot }) => slot).sort(), [0, 1, 2, 3]);
    assert.deepEqual(places.map(({ id }) => id).sort(), [1, 2, 3, 4]);
    assert.match(lines.join(''), /its records are older than what was seen/);
  });

  it('takes a new lease if the one it has lapses before the place is claimed', async () => {
    let lapsed = 0;
    const gate = createServer((request, response) => {
      void (async () => {
        const body = await text(request);
        const lease = request.url === '/v3/kv/txn' ? /"lease":"(\d+)"/.exec(body)?.[1] : undefined;
        if (lease !== undefined && lapsed++ < 2) await etcd.client.revoke(lease);
        const answer = await fetch(`${etcd.endpoint}${request.url}`, { method: 'POST', body });
        response.writeHead(answer.status).end(await answer.text());
      })();
    });
    await new Promise<void>((resolve) => gate.listen(0, '127.0.0.1', resolve));
    try {
      const endpoint = `http://127.0.0.1:${(gate.address() as AddressInfo).port}`;
      const { id, lease } = await place('a', { endpoint });
      assert.deepEqual([id, lapsed], [1, 3]);
      assert.ok(await etcd.client.keepAlive(lease));
    } finally {
      gate.closeAllConnections();
      gate.close();
    }
  });

  it('reads everything anew when what it watches from was compacted away', async () => {
    const a = await join('a');
    await until('it sees itself', () => a.names.length === 1);
    const root = rootOf('/ct', cluster);
    for (let i = 0; i < 5; i++) await etcd.client.change([], [{ put: `${root}other`, value: String(i) }]);
    const { revision } = await etcd.client.read(root);
    await etcd.compact();
    const watch = etcd.client.watch(root, revision - 3, AbortSignal.timeout(10_000));
    await assert.rejects(watch.next(), CompactedError);
    // An etcd that was away comes back with its history compacted.
    await etcd.kill();
    await etcd.up();
    await etcd.client.change([], [{ put: `${root}other`, value: 'last' }]);
    await etcd.compact();
    await join('b');
    await until('a sees it', () => a.names.length === 2);
  });

  const root = rootOf('/ct/', 'x y');
  const entry = (key: string, value: string | Uint8Array) => ({
    key,
    value: Buffer.from(value as string),
    revision: 1,
  });

  it('refuses what is no member’s record', () => {
    const records = new Records(root, SLOTS);
    assert.equal(records.root, '/ct/x%20y/');
    const tooLong = JSON.stringify({ ...RECORD, name: 'x'.repeat(5000) });
    for (const value of ['', '[]', '{"name":"a","id":"1"}', tooLong, encodeRecord(RECORD, true).subarray(1)]) {
      records.reset([entry(records.slotKey(0), value)]);
      assert.throws(() => records.entry(0), /slot\/00 is not a member's record: it /);
    }
  });

  it('writes entries in CBOR once no living member reads only JSON', () => {
    const records = new Records(root, SLOTS);
    const applicant = { name: 'a', address: '10.0.0.1', port: 7400, incarnation: 5, slots: SLOTS };
    const written = (): Uint8Array => {
      const put = records
        .claim(applicant, '1')
        .operations.find((operation) => 'put' in operation && operation.put.includes('slot/'));
      assert.ok(put !== undefined && 'put' in put);
      return Buffer.from(put.value as string);
    };
    const isCbor = (bytes: Uint8Array): boolean => bytes[0] !== '{'.charCodeAt(0);
    assert.ok(isCbor(written()), 'alone');
    const { cbor: _, ...old } = JSON.parse(Buffer.from(encodeRecord(RECORD, false)).toString()) as object & { cbor: 1 };
    records.reset([entry(records.slotKey(0), JSON.stringify(old)), entry(records.aliveKey(0), '3')]);
    assert.ok(!isCbor(written()), 'a member of an earlier version is alive');
    records.delete(records.aliveKey(0));
    assert.ok(isCbor(written()), 'it is not alive any more');
    records.reset([entry(records.slotKey(0), encodeRecord(RECORD, false)), entry(records.aliveKey(0), '3')]);
    assert.ok(isCbor(written()), 'a member of this version wrote JSON');
    for (const asCbor of [true, false]) {
      const { record, readsCbor } = decodeRecord('key', encodeRecord(RECORD, asCbor));
      assert.deepEqual(record, RECORD);
      assert.ok(readsCbor);
    }
  });
});

const RECORD: SlotRecord = {
  ...{ name: 'b', id: 7, address: '10.0.0.2', port: 7400, incarnation: 2 ** 52 + 1, dead: 3 },
  ...{ left: false, evicted: true },
};

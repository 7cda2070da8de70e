/**
 * By multicast, what only one member lacks goes to that member: no other member receives any of it.
 */

import { strict as assert } from 'node:assert';
import { AckBoard } from '../../../shm/ack-board.js';
import { MemberTable, MemberTableWriter, Role } from '../../../shm/members.js';
import { MessageReader } from '../../../workers/replication/wire/message.js';
import { NOTE } from '../../support/ledger.js';
import { MEANING_HASH, Network } from './network.js';

const [ORIGIN, LOSER] = [0, 1];
const MEMBERS = 4;

/**
 * What reached the members that lose nothing: units that came again, and units for another member.
 */
class Watch {
  readonly again: string[] = [];
  readonly foreign: string[] = [];
  /** Messages with units that went to the member that loses some. */
  toLoser = 0;
  /** Whether a datagram to the member that loses some is lost. */
  loses: (from: number) => boolean = () => false;
  private readonly seen = new Set<string>();
  private readonly reader: MessageReader;

  constructor(network: Network) {
    const { settings } = network.members[0];
    this.reader = new MessageReader(settings.clusterId, MEANING_HASH, 2, 9216);
    network.drop = (from, to, bytes) => {
      if (to === LOSER) {
        if (this.isWithUnits(bytes)) this.toLoser++;
        return this.loses(from);
      }
      this.look(to, bytes);
      return false;
    };
  }

  private isWithUnits(bytes: Uint8Array): boolean {
    assert.equal(this.reader.read(bytes), null);
    return this.reader.units > 0;
  }

  private look(to: number, bytes: Uint8Array): void {
    if (!this.isWithUnits(bytes)) return;
    const { reader } = this;
    for (let i = 0; i < reader.units; i++) {
      reader.unit(i);
      const unit = `member ${to}: object ${reader.object}, ${reader.unitsOrigin}/${reader.unitsIncarnation}/${reader.first}`;
      if (reader.excludes(to)) this.foreign.push(unit);
      else if (this.seen.has(unit)) this.again.push(unit);
      this.seen.add(unit);
    }
  }
}

/** Units of the origin, each of one record; so many a millisecond. */
function append(network: Network, count: number, perMs = 1): void {
  for (let i = 0; i < count; i++) {
    for (const object of [0, 1]) network.append(ORIGIN, object, NOTE, i);
    if (i % perMs === 0) network.run(1);
  }
}

function isEqual(network: Network): boolean {
  const [first, ...others] = network.members
    .filter(({ index }) => index !== ORIGIN)
    .map(({ objects }) => JSON.stringify(objects.map(({ notes }) => notes.get(ORIGIN)?.toSorted((a, b) => a - b))));
  return others.every((other) => other === first);
}

describe('multicast', () => {
  for (const loss of [0.05, 0.4])
    it(`repeats what one member lost to that member alone, at ${100 * loss} % loss`, () => {
      const network = new Network({ seed: 71, members: MEMBERS, multicast: true, delayMs: [1, 3] });
      network.run(500);
      const watch = new Watch(network);
      watch.loses = (from) => from === ORIGIN && network.random() < loss;
      append(network, 150);
      assert.ok(network.runUntil(() => network.settled, 20_000));
      assert.ok(network.members[ORIGIN].counts.value('state_tx_retransmissions') > 0);
      assert.deepEqual([watch.again, watch.foreign], [[], []]);
      assert.ok(isEqual(network));
    });

  it('repeats to all what several lost', () => {
    const network = new Network({ seed: 72, members: MEMBERS, multicast: true, delayMs: [1, 3] });
    network.run(500);
    network.drop = (from, to) => from === ORIGIN && to !== 3;
    append(network, 10);
    network.drop = null;
    assert.ok(network.runUntil(() => network.settled, 20_000));
    assert.ok(isEqual(network));
    assert.ok(network.members[3].counts.value('state_rx_units_duplicate') > 0, 'one message for both');
  });

  it('sends the backlog of a detached member to that member alone, and new units if only one member takes them', () => {
    const network = new Network({
      seed: 73,
      members: MEMBERS,
      multicast: true,
      delayMs: [1, 3],
      settings: { unitLogBytes: 64 << 10, detachMs: 100 },
    });
    network.run(500);
    const watch = new Watch(network);
    watch.loses = () => true;
    append(network, 4000, 10);
    assert.ok(network.members[ORIGIN].counts.value('state_tx_detached') > 0);
    watch.loses = () => false;
    watch.toLoser = 0;
    append(network, 100);
    assert.ok(network.runUntil(() => network.settled, 60_000));
    assert.ok(watch.toLoser > 0);
    assert.deepEqual([watch.again, watch.foreign], [[], []]);
    assert.ok(isEqual(network));
  });

  it('passes on what one survivor lacks of a dead member to that survivor alone', () => {
    const network = new Network({ seed: 74, members: MEMBERS, multicast: true, delayMs: [1, 3] });
    network.run(500);
    const watch = new Watch(network);
    append(network, 10);
    watch.loses = (from) => from === ORIGIN;
    append(network, 5);
    network.run(20);
    const dead = new AckBoard(network.members[ORIGIN].board).incarnation;
    network.members[ORIGIN].up = false;
    for (const { table, index } of network.members) {
      if (index === ORIGIN) continue;
      const now = new MemberTable(table);
      const entries = Array.from({ length: now.slots }, (_, slot) => now.entry(slot));
      entries[ORIGIN] = { ...entries[ORIGIN], role: Role.EVICTED, dead };
      new MemberTableWriter(table).write(1, entries);
    }
    assert.ok(!isEqual(network));
    assert.ok(network.runUntil(() => isEqual(network), 10_000));
    assert.ok(network.members[LOSER].counts.value('state_rx_units_repaired') > 0);
    assert.deepEqual([watch.again, watch.foreign], [[], []]);
  });
});

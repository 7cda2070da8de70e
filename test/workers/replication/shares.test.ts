/** With a limit on what is sent, new units leave room for those sent again and for backlogs. */

import { strict as assert } from 'node:assert';
import { AckBoard } from '../../../shm/ack-board.js';
import { Reception } from '../../../workers/replication/units/reception.js';
import { MessageReader } from '../../../workers/replication/wire/message.js';
import { NOTE } from '../../support/ledger.js';
import { MEANING_HASH, Network, type NetworkOptions } from './network.js';

/**
 * Records of one member's worker, which come faster than the limit carries them; as the send
 * thread's shell takes them.
 */
class Flood {
  readonly network: Network;
  made = 0;
  private readonly objects: readonly number[];
  private waiting = 0;

  constructor(options: Partial<NetworkOptions> & { seed: number }, objects: readonly number[] = [0]) {
    this.network = new Network({
      ...{ members: 3, deliveries: ['any-order', 'any-order'], delayMs: [10, 11] },
      ...options,
      settings: { bandwidth: 2_000_000, detachMs: 200, ...options.settings },
    });
    this.objects = objects;
  }

  /** `perMs` notes a millisecond of each object; 12 bytes each. */
  run(ms: number, perMs: number): void {
    const { network, objects } = this;
    const { sender } = network.members[0];
    for (let end = network.now + ms; network.now < end; ) {
      this.waiting = Math.min(4096, this.waiting + perMs);
      if ((sender.throttle(network.now) === 0 || this.waiting > 2048) && sender.makeRoom()) {
        let room = true;
        for (; room && this.waiting > 0; this.waiting--, this.made++)
          for (const object of objects) room = sender.append(object, NOTE, Int32Array.of(this.made), 0, 1) && room;
        sender.cut();
      }
      network.run(1);
    }
  }

  /** How many notes of the object the member has. */
  notes(member: number, object = 0): number {
    return this.network.members[member].objects[object].notes.get(0)?.length ?? 0;
  }

  through(member: number, object = 0): number {
    const vector = new Reception();
    new AckBoard(this.network.members[member].board).readReception(object, 0, vector);
    return vector.contiguous;
  }
}

describe('a limit on what is sent', () => {
  for (const [objects, what] of [
    [[0], 'of the same object'],
    [[1], 'of another'],
  ] as const)
    it(`lets a lost unit be sent again however many new ones wait, ${what}`, () => {
      const flood = new Flood({ seed: 1, settings: { unitLogBytes: 4 << 20 } }, objects);
      const { network } = flood;
      const reader = new MessageReader(0xc0ffee, MEANING_HASH, 2, 9216);
      flood.run(500, 40);
      network.append(0, 0, NOTE, 1_000_000);
      let first = 0;
      let lostAt = 0;
      let againAt = 0;
      network.drop = (from, to, bytes) => {
        if (from !== 0 || to !== 1 || reader.read(bytes) !== null || reader.object !== 0) return false;
        for (let i = 0; i < reader.units; i++) {
          reader.unit(i);
          if (lostAt === 0) {
            first = reader.first;
            lostAt = network.now;
            return true;
          }
          if (reader.first === first) againAt ||= network.now;
        }
        return false;
      };
      flood.run(2000, 40);
      assert.ok(lostAt > 0 && againAt > 0, `lost at ${lostAt}, sent again at ${againAt}`);
      // A round trip, the acknowledgement's delay, and what is in the bucket before it.
      assert.ok(againAt - lostAt < 500, `${againAt - lostAt} ms`);
      assert.ok(flood.through(1) >= first);
      assert.equal(network.members[0].counts.value('state_tx_detached'), 0);
    });

  it('lets a backlog be paid while new units keep coming, and leaves these their part', () => {
    const flood = new Flood({ seed: 2, settings: { unitLogBytes: 64 << 10 } });
    const { network } = flood;
    const [here] = network.members;
    flood.run(500, 5);
    network.drop = (from, to) => from === 1 || to === 1;
    flood.run(2500, 30);
    assert.ok(here.sender.backlogMembers > 0);
    network.drop = null;
    const owed = flood.through(1);
    const others = flood.notes(2);
    flood.run(2000, 40);
    // 2 Mbit/s to two members carry at least 5 kB a second of each kind.
    assert.ok(flood.through(1) > owed + 1000, `${flood.through(1) - owed} of the backlog`);
    assert.ok(flood.notes(2) > others + 1000, `${flood.notes(2) - others} new ones`);
  });
});

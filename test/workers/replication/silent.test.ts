import { strict as assert } from 'node:assert';
import { UnitLog } from '../../../workers/replication/units/unit-log.js';
import { ADD, NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

const SMALL = { unitLogBytes: 64 << 10 } as const;

/**
 * Appends notes `from … to`, in rounds of one, waiting where there is no room. Returns whether all
 * were taken.
 */
function note(network: Network, from: number, to: number): boolean {
  for (let id = from; id < to; id++) if (!network.runUntil(() => network.append(0, 0, NOTE, id), 10_000)) return false;
  return true;
}

function countLoads(body: () => void): number {
  const { load } = UnitLog.prototype;
  let loads = 0;
  UnitLog.prototype.load = function (position) {
    loads++;
    return load.call(this, position);
  };
  try {
    body();
  } finally {
    UnitLog.prototype.load = load;
  }
  return loads;
}

describe('a silent member', () => {
  it('does not stop the others: it is detached when the log is full, and has everything once it is back', () => {
    const network = new Network({ seed: 10, members: 3, deliveries: ['any-order'], settings: SMALL });
    network.run(500);
    const [here, heard, away] = network.members;
    away.up = false;
    network.run(1500);
    const total = 6000;
    assert.ok(note(network, 0, total));
    assert.ok(
      network.runUntil(() => heard.objects[0].applied === total, 2000),
      'the one that is heard has everything',
    );
    assert.ok(here.sender.keptBytes <= SMALL.unitLogBytes);
    assert.equal(here.counts.value('state_tx_detached'), 1);
    assert.equal(here.alarms.length, 1);
    assert.match(here.alarms[0], /m3/);
    assert.equal(heard.counts.value('state_rx_records_skipped'), 0);
    away.up = true;
    assert.ok(network.runUntil(() => network.settled, 60_000));
    assert.equal(away.counts.value('state_rx_records_skipped'), 0);
    assert.deepEqual(
      away.objects[0].notes.get(0)?.toSorted((a, b) => a - b),
      Array.from({ length: total }, (_, i) => i),
    );
    assert.equal(here.counts.value('state_tx_reattached'), 1);
    assert.equal(here.sender.backlogBytes, 0);
    // The next silence is another episode.
    away.up = false;
    network.run(1500);
    assert.ok(note(network, total, 2 * total));
    assert.equal(here.alarms.length, 2);
  });

  it('is detached at once; who is heard and behind, after a while', () => {
    const network = new Network({ seed: 11, members: 3, deliveries: ['any-order'], settings: SMALL });
    network.run(500);
    const [here, behind, away] = network.members;
    away.up = false;
    network.run(1500);
    // Member 1 is heard and gets nothing of ours through.
    network.drop = (from, to) => from === 0 && to === 1;
    let next = 0;
    while (here.counts.value('state_tx_detached') === 0) {
      if (network.append(0, 0, NOTE, next)) next++;
      network.run(0.25);
    }
    assert.equal(here.sender.backlogMembers, 1);
    while (network.append(0, 0, NOTE, next)) next++;
    assert.equal(here.sender.fullLogs, 1);
    network.run(here.settings.detachMs - 50);
    assert.equal(here.sender.fullLogs, 1);
    network.run(100);
    assert.equal(here.sender.fullLogs, 0);
    assert.equal(here.sender.backlogMembers, 2);
    network.drop = null;
    away.up = true;
    assert.ok(note(network, next, next + 100));
    assert.ok(network.runUntil(() => network.settled, 60_000));
    for (const member of [behind, away])
      assert.deepEqual(
        member.objects[0].notes.get(0)?.toSorted((a, b) => a - b),
        Array.from({ length: next + 100 }, (_, i) => i),
      );
  });

  it('may be all others: then what is owed to them is all that is kept', () => {
    const network = new Network({ seed: 12, members: 2, settings: SMALL });
    const [here, away] = network.members;
    away.up = false;
    assert.ok(note(network, 0, 6000));
    network.run(1);
    assert.equal(here.sender.backlogMembers, 1);
    assert.ok(here.sender.keptUnits >= 6000);
    assert.equal(here.sender.channels[0].log.units, 0);
    away.up = true;
    assert.ok(network.runUntil(() => network.settled, 60_000));
    assert.equal(away.objects[0].applied, 6000);
  });

  it('gets probes only', () => {
    const network = new Network({ seed: 13, members: 3, settings: SMALL });
    network.run(500);
    network.members[2].up = false;
    network.run(1500);
    assert.ok(note(network, 0, 200));
    network.run(1000);
    const { counts } = network.members[0];
    const before = counts.value('state_tx_retransmissions');
    network.run(10_000);
    const probes = counts.value('state_tx_retransmissions') - before;
    assert.ok(probes > 0 && probes <= 20, `${probes} probes`);
  });

  it('costs no walk over what only it lacks', () => {
    const network = new Network({
      seed: 14,
      members: 3,
      deliveries: ['any-order'],
      settings: { unitLogBytes: 1 << 18 },
    });
    network.run(500);
    network.members[2].up = false;
    network.run(1500);
    assert.ok(note(network, 0, 3000));
    assert.ok(network.members[0].sender.keptUnits >= 3000);
    network.run(2000);
    const loads = countLoads(() => {
      for (let id = 3000; id < 3100; id++) {
        assert.ok(network.append(0, 0, NOTE, id));
        network.run(25);
      }
    });
    assert.ok(loads < 10_000, `${loads} units looked at for 100 new ones`);
  });

  it('is sent again what it lacks in bounded pieces that follow each other', () => {
    const network = new Network({
      seed: 15,
      members: 2,
      deliveries: ['any-order'],
      settings: { unitLogBytes: 1 << 20 },
    });
    network.run(500);
    const [here, away] = network.members;
    away.up = false;
    const total = 20_000;
    assert.ok(note(network, 0, total));
    network.run(1500);
    const held = here.sender.keptUnits;
    away.up = true;
    const loads = countLoads(() => assert.ok(network.runUntil(() => network.settled, 60_000)));
    assert.equal(away.objects[0].applied, held);
    assert.ok(loads < 6 * held, `${loads} units looked at to send ${held} again`);
  });

  it('is sent long units in messages, not more at once than short ones', () => {
    const network = new Network({ seed: 16, members: 2, deliveries: ['any-order'] });
    network.run(500);
    const [here, away] = network.members;
    away.up = false;
    for (let unit = 0; unit < 100; unit++) {
      here.sender.makeRoom();
      for (let key = 0; key < 100; key++) here.sender.append(0, ADD, Int32Array.of(100 * unit + key, 1), 0, 2);
      here.sender.cut();
      network.run(1);
    }
    network.run(1500);
    away.up = true;
    let most = 0;
    let now = 0;
    let at = 0;
    network.drop = (from) => {
      if (from !== 0) return false;
      if (network.now !== at) now = 0;
      at = network.now;
      most = Math.max(most, ++now);
      return false;
    };
    assert.ok(network.runUntil(() => network.settled, 60_000));
    assert.equal(away.objects[0].applied, 10_000);
    assert.ok(most <= 20, `${most} messages at once`);
  });
});

import { strict as assert } from 'node:assert';
import { UnitLog } from '../../../workers/replication/unit-log.js';
import { ADD, NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

const SMALL = { unitLogBytes: 64 << 10 } as const;

/** Appends notes `from … to`, in rounds of one, waiting where there is no room. Returns whether all were taken. */
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
  it('does not stop the others: a full log lets go of what it lacks, counts it and says so once', () => {
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
    assert.ok(here.sender.heldBytes <= SMALL.unitLogBytes);
    const let_go = here.counts.value('state_tx_units_let_go');
    assert.ok(let_go > 0);
    assert.equal(here.alarms.length, 1);
    assert.match(here.alarms[0], /\(m3\)/);
    assert.equal(heard.counts.value('state_rx_records_skipped'), 0);
    // It skips what was let go, and has all the rest.
    const held = here.sender.heldUnits;
    away.up = true;
    assert.ok(network.runUntil(() => network.settled, 60_000));
    assert.equal(away.counts.value('state_rx_records_skipped'), let_go);
    const notes = away.objects[0].notes.get(0)?.toSorted((a, b) => a - b);
    assert.deepEqual(
      notes,
      Array.from({ length: held }, (_, i) => total - held + i),
    );
    assert.equal(held + let_go, total);
    // The next silence is another episode.
    away.up = false;
    network.run(1500);
    assert.ok(note(network, total, 2 * total));
    assert.equal(here.alarms.length, 2);
  });

  it('is no reason to let go of what a member that is heard lacks', () => {
    const network = new Network({ seed: 11, members: 3, deliveries: ['any-order'], settings: SMALL });
    network.run(500);
    network.members[2].up = false;
    network.run(1500);
    // Member 1 is heard and gets nothing of ours through.
    network.drop = (from, to) => from === 0 && to === 1;
    assert.ok(!note(network, 0, 6000));
    assert.equal(network.members[0].counts.value('state_tx_units_let_go'), 0);
    assert.equal(network.members[0].sender.fullLogs, 1);
    network.drop = null;
    assert.ok(network.runUntil(() => network.append(0, 0, NOTE, 6000), 20_000));
  });

  it('may be all others: then the oldest go', () => {
    const network = new Network({ seed: 12, members: 2, settings: SMALL });
    network.members[1].up = false;
    assert.ok(note(network, 0, 6000));
    const { sender, counts } = network.members[0];
    assert.equal(counts.value('state_tx_units_let_go') + sender.heldUnits, 6000);
    while (network.append(0, 0, NOTE, 0));
    const full = sender.heldUnits;
    network.run(1000);
    assert.ok(sender.heldUnits < full && sender.heldUnits > 0.8 * full, 'no more than is needed');
    // A new thread looks who is heard before it lets go of anything.
    const before = counts.value('state_tx_units_let_go');
    network.members[1].up = true;
    network.run(1000);
    network.members[0].startSender();
    network.append(0, 0, NOTE, 6000);
    network.run(100);
    assert.equal(counts.value('state_tx_units_let_go'), before);
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
    assert.ok(network.members[0].sender.heldUnits >= 3000);
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
    const held = here.sender.heldUnits;
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

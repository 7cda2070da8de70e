/**
 * A state object of one's own, declared by a middlebox, replicated by the protocol core over a
 * network that loses and reorders.
 */

import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineMiddlebox, destinationPort, option, portNumber } from 'constellation';
import { LogConsumer } from '../../../shm/log.js';
import type { Middlebox } from '../../../workers/api/middlebox.js';
import { Network } from '../replication/network.js';
import { on } from '../support/plane.js';
import { INSIDE, Site } from '../support/site.js';
import { Spans, spans } from './own-object.js';

/** Keeps, per port it comes in by, the span of the destination ports seen. */
const watch = defineMiddlebox({
  name: 'watch',
  help: 'Watches ports.',
  options: { inside: option.port('port inside') },
  counters: { unreplicated: 'packets whose port could not be told' },
  state: () => ({ ports: spans({ length: 2 }) }),
  open:
    ({ options: { inside }, state: { ports }, counters, batch }) =>
    () => {
      for (let i = 0; i < batch.count; i++) {
        if (batch.skips(i) || batch.port[i] !== inside) continue;
        if (!ports.widen(batch.port[i], portNumber(destinationPort(batch.ports[i]))))
          batch.count1(counters.unreplicated);
      }
    },
});

/** Two sites with the middlebox, their receive threads' objects on the ends of a network. */
class Pair {
  readonly network: Network;
  readonly sites: readonly Site[];
  private readonly logs: readonly LogConsumer[];

  constructor(loss: number) {
    this.network = new Network({
      seed: 7,
      members: 2,
      deliveries: ['any-order'],
      loss,
      duplicate: loss,
      delayMs: [1, 60],
    });
    this.sites = [0, 1].map(
      (member) =>
        new Site({
          chain: [{ middlebox: watch as unknown as Middlebox, options: { inside: INSIDE } }],
          member,
          members: 2,
        }),
    );
    this.logs = this.sites.map(({ plane }) => new LogConsumer(plane.logBuffer));
    for (const [i, member] of this.network.members.entries()) {
      member.objects = this.sites[i].receiver as never;
      member.startSender();
      member.startReceiver();
    }
  }

  /**
   * A packet from inside to a port, at a site; and what the site tells of it, into its send thread.
   */
  see(site: number, port: number): void {
    this.sites[site].pass(on(INSIDE, `udp 10.0.0.5:9 > 8.8.8.8:${port}`));
    const log = this.logs[site];
    while (log.next()) {
      assert.ok(this.network.members[site].sender.makeRoom());
      this.network.members[site].sender.append(log.objectId, log.op, log.words, log.at, log.length);
    }
    log.release();
    this.network.members[site].sender.cut();
  }

  spans(site: number): Spans {
    const [object] = this.sites[site].receiver;
    assert.ok(object instanceof Spans);
    return object;
  }
}

describe("a user's own state object", () => {
  it('is written against the public API alone', () => {
    const file = fileURLToPath(new URL('../../../../test/workers/api/own-object.ts', import.meta.url));
    const imported = [...readFileSync(file, 'utf8').matchAll(/from '([^']+)'/g)].map(([, module]) => module);
    assert.deepEqual(imported, ['constellation']);
  });

  it('is the same at two sites once the network is quiet, whatever it loses, repeats and reorders', () => {
    const pair = new Pair(0.2);
    const { random } = pair.network;
    let low = 65_536;
    let high = 0;
    for (let n = 0; n < 300; n++) {
      const port = 1 + Math.trunc(random() * 65_535);
      low = Math.min(low, port);
      high = Math.max(high, port);
      pair.see(n % 2, port);
      pair.network.run(5);
    }
    pair.network.faults = false;
    assert.ok(pair.network.runUntil(() => pair.network.settled, 60_000));
    for (const site of [0, 1])
      assert.deepEqual([pair.spans(site).low(INSIDE), pair.spans(site).high(INSIDE)], [low, high]);
    assert.equal(pair.spans(0).digest(), pair.spans(1).digest());
    assert.deepEqual(pair.spans(0).describe(), { capacity: 2, used: 1 });
  });

  it('refuses records that nobody can have sent', () => {
    const pair = new Pair(0);
    const object = pair.spans(0);
    for (const record of [
      [2, 1, 1],
      [-1, 1, 1],
      [0, 0, 1],
      [0, 5, 4],
      [0, 1],
    ])
      assert.equal(object.apply(1, Int32Array.from(record), 0, record.length), 2, record.join());
    assert.equal(object.describe()['used'], 0);
  });
});

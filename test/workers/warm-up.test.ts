import { strict as assert } from 'node:assert';
import { Instance, type InstancePlan } from '../../workers/instance.js';
import { parseIpv4 } from '../../workers/packet/ipv4.js';
import { clusterIdOf, replicationSettings } from '../../workers/replication/settings.js';
import { warmUp } from '../../workers/warm-up.js';
import { routePort } from './support/plane.js';

const PLAN: InstancePlan = {
  middleboxes: [
    {
      module: new URL('../../workers/middleboxes/nat.js', import.meta.url).href,
      options: {
        inside: 0,
        outside: 1,
        external: [parseIpv4('203.0.113.1')],
        flows: 1024,
        first_port: 1,
        last_port: 65_535,
        allocation: 'leased',
        tcp_established: 7440,
        tcp_transitory: 240,
        udp: 300,
        icmp: 60,
      },
    },
  ],
  io: { driver: 'pcap', ports: [{}, {}], pace: 'asap' },
  routes: [routePort(), routePort()],
  replication: replicationSettings({
    clusterId: clusterIdOf('test'),
    self: 1,
    members: [{ id: 1, name: 'a', address: '127.0.0.1', port: 0 }],
  }),
  faults: null,
  idle: 'sleep',
  workerCores: [null],
  sendCore: null,
  receiveCore: null,
  logWords: 4096,
};

describe('warming up', () => {
  it('sends packets through the real chain and leaves no trace', async () => {
    const instance = await Instance.create(PLAN, 1);
    const before = instance.openObjects(null).map((object) => object.digest());
    const packets = warmUp(instance, 100);
    assert.ok(packets > 1000, `${packets} packets`);
    assert.deepEqual(
      instance.openObjects(null).map((object) => object.digest()),
      before,
    );
    assert.equal(instance.openObjects(null)[0].describe(0)['used'], 0);
    assert.ok(instance.metrics.row(0).every((count) => count === 0));
    assert.ok(new Int32Array(instance.buffers.logs[0]).every((word) => word === 0));
  });
});

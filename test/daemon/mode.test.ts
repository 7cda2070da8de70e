/** Mode `wire` in the configuration, and over capture files. */

import { strict as assert } from 'node:assert';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseConfig } from '../../daemon/config/config.js';
import { builtInMiddleboxes } from '../../daemon/config/middleboxes.js';
import { PcapWriter } from '../../workers/drivers/pcap-file.js';
import { fakeFirewall, RIGHT } from '../conf/fake-nat.js';
import { LoopbackCluster } from '../support/loopback-cluster.js';
import { frame } from '../workers/support/frames.js';

const WATCHER = fileURLToPath(new URL('../support/watcher.js', import.meta.url));

const WIRE = RIGHT.replace(/ports:[\s\S]*/, 'mode: wire\nmiddleboxes: [{ firewall: {} }]\n');
const INTERFACES = 'ports: { left: { interface: eth0 }, right: { interface: eth1 } }\n';

describe('mode: wire', () => {
  let builtIn: Awaited<ReturnType<typeof builtInMiddleboxes>> = [];
  before(async () => {
    builtIn = await builtInMiddleboxes();
  });

  function errors(text: string): readonly string[] {
    const nat = builtIn.filter(({ name }) => name === 'nat');
    const known = { middleboxes: [...nat, fakeFirewall], cores: [0] };
    return (parseConfig('/f', text, known).errors ?? []).map((error) => error.replace(/^\/f:[\d:]+ /, ''));
  }

  it('is a setting of the whole instance, and needs no addresses', () => {
    const known = { middleboxes: [fakeFirewall], cores: [0] };
    assert.equal(parseConfig('/f', WIRE + INTERFACES, known).config?.mode, 'wire');
    assert.deepEqual(errors(`${WIRE}packet_io: { driver: pcap }\nports: { left: { in: a.pcap }, right: {} }\n`), []);
    assert.deepEqual(errors((WIRE + INTERFACES).replace('wire', 'bridge')), [
      'mode: expected route or wire, not "bridge"',
    ]);
  });

  it('refuses addresses and next hops, which it has no use for', () => {
    const why = 'in mode wire frames keep their link-layer addresses: leave it out';
    const mac = '02:00:00:00:00:01';
    assert.deepEqual(
      errors(`${WIRE}ports: { left: { interface: eth0, next_hop: ${mac} }, right: { interface: eth1 } }\n`),
      [`ports.left.next_hop: ${why}`],
    );
    assert.deepEqual(
      errors(`${WIRE}ports: { left: { interface: eth0, next_hop6: 'fe80::1' }, right: { interface: eth1 } }\n`),
      [`ports.left.next_hop6: ${why}`],
    );
    assert.deepEqual(errors(`${WIRE}packet_io: { driver: pcap }\nports: { left: { mac: ${mac} }, right: {} }\n`), [
      `ports.left.mac: ${why}`,
    ]);
  });

  it('keeps VLANs separate by default, and has a setting for it in mode wire alone', () => {
    const known = { middleboxes: [fakeFirewall], cores: [0] };
    const vlans = (text: string) => parseConfig('/f', text, known).config?.vlans;
    assert.equal(vlans(WIRE + INTERFACES), 'separate');
    assert.equal(vlans(`${WIRE}vlans: together\n${INTERFACES}`), 'together');
    const routed = `${WIRE.replace('mode: wire\n', '')}${INTERFACES}`;
    assert.deepEqual(errors(`${routed}vlans: separate\n`), []);
    assert.deepEqual(errors(`${routed}vlans: together\n`), [
      'vlans: has no meaning in mode route, where VLAN tags are never looked at: leave it out',
    ]);
  });

  it('drops what cannot be inspected by default, and has a setting for it in mode wire alone', () => {
    const known = { middleboxes: [fakeFirewall], cores: [0] };
    const unknown = (text: string) => parseConfig('/f', text, known).config?.unknown_ethertypes;
    assert.equal(unknown(WIRE + INTERFACES), 'drop');
    assert.equal(unknown(`${WIRE}unknown_ethertypes: pass\n${INTERFACES}`), 'pass');
    assert.deepEqual(errors(`${WIRE.replace('mode: wire\n', '')}${INTERFACES}unknown_ethertypes: pass\n`), [
      'unknown_ethertypes: has no meaning in mode route, where only IP is forwarded: leave it out',
    ]);
  });

  it('drops source routes by default, in both modes', () => {
    const known = { middleboxes: [fakeFirewall], cores: [0] };
    for (const start of [WIRE, WIRE.replace('mode: wire\n', '')]) {
      const routes = (text: string) => parseConfig('/f', start + text + INTERFACES, known).config?.source_routes;
      assert.deepEqual([routes(''), routes('source_routes: pass\n')], ['drop', 'pass']);
    }
  });

  it('is route unless told, and then capture files need both', () => {
    assert.deepEqual(
      errors(
        `${WIRE.replace('mode: wire\n', '')}packet_io: { driver: pcap }\nports: { left: { in: a.pcap }, right: {} }\n`,
      ),
      ['left.mac', 'left.next_hop', 'right.mac', 'right.next_hop'].map(
        (setting) => `ports.${setting}: is required: a MAC address such as 02:00:00:00:00:01`,
      ),
    );
  });

  it('is refused by a middlebox that stands in a route only', () => {
    const nat = WIRE.replace('firewall: {}', 'nat: { inside: left, outside: right, external: [203.0.113.1] }');
    assert.deepEqual(errors(nat + INTERFACES), [
      "middleboxes[0].nat: nat works in mode route, and this instance's is wire",
    ]);
  });

  it('passes the frames of capture files byte for byte, what is not IP too', async () => {
    const cluster = await LoopbackCluster.create();
    try {
      const frames = ['udp 10.0.0.5:1 > 10.0.0.9:2 len 5 ttl 1', 'tcp 10.0.0.5:1 > 10.0.0.9:2 S vlan 7'].map(frame);
      const arp = frames[0].slice(0, 60);
      arp.set([8, 6], 12);
      const file = (name: string): string => join(cluster.folder, name);
      write(file('in.pcap'), [...frames, arp]);
      const instance = await cluster.start('a', {
        members: ['a'],
        sections: {
          mode: 'wire',
          ports: { left: { in: file('in.pcap') }, right: { out: file('out.pcap') } },
          middleboxes: [{ [WATCHER]: {} }],
        },
      });
      const { size } = statSync(file('in.pcap'));
      await instance.program.until(
        () => (existsSync(file('out.pcap')) && statSync(file('out.pcap')).size === size ? true : null),
        'to write all frames',
        10_000,
      );
      assert.deepEqual(readFileSync(file('out.pcap')), readFileSync(file('in.pcap')));
      assert.equal((await instance.counters())['watcher_ipv4'], 2);
    } finally {
      await cluster.down();
    }
  });
});

function write(path: string, frames: readonly Uint8Array[]): void {
  const writer = new PcapWriter(path, false);
  for (const bytes of frames) writer.write(bytes, 0, bytes.length, 1, 0);
  writer.close();
}

import { strict as assert } from 'node:assert';
import { execFile } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { freePort, rangeOutside } from '../support/ports.js';

const MODULE = new URL('../support/ports.js', import.meta.url).href;
const PROCESSES = 3;
const PORTS = 20;

describe('ports of tests', () => {
  it('lie outside the ephemeral range, differ between processes, and are not in use', async () => {
    const [first, last] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split('\t').map(Number);
    const script = `
      const { freePort } = await import(${JSON.stringify(MODULE)});
      for (let n = 0; n < ${PORTS}; n++) console.log(await freePort('127.0.0.1'));
      await new Promise((resolve) => process.stdin.resume().on('end', resolve));`;
    const argv = ['--input-type=module', '-e', script];
    // All are there at the same time: each ends with its input, after the last has drawn.
    const children = Array.from({ length: PROCESSES }, () => execFile(process.execPath, argv));
    const outputs = children.map(async (child) => {
      let text = '';
      for await (const part of child.stdout ?? []) {
        text += part;
        if (text.trimEnd().split('\n').length === PORTS && text.endsWith('\n')) return text;
      }
      return text;
    });
    const own: number[] = [];
    for (let n = 0; n < PORTS; n++) own.push(await freePort('127.0.0.1'));
    const others = (await Promise.all(outputs)).flatMap((text) => text.trim().split('\n').map(Number));
    for (const child of children) child.stdin?.end();
    const all = [...own, ...others];
    assert.equal(all.length, (PROCESSES + 1) * PORTS);
    assert.equal(new Set(all).size, all.length, 'no port twice');
    for (const port of all) assert.ok(port < first || port > last, `${port} is outside ${first} to ${last}`);
  });

  it('pass over what is in use, for UDP or TCP', async () => {
    const port = await freePort('127.0.0.1');
    const udp = createSocket('udp4').bind(port + 1, '127.0.0.1');
    const tcp = createServer().listen(port + 2, '127.0.0.1');
    await Promise.all([once(udp, 'listening'), once(tcp, 'listening')]);
    const next = await freePort('127.0.0.1');
    assert.equal(next, port + 3);
    udp.close();
    tcp.close();
  });

  it('come from the larger range that the ephemeral one leaves, or there are none', () => {
    assert.deepEqual(rangeOutside({ first: 32_768, last: 60_999 }), { first: 10_000, last: 32_767 });
    assert.deepEqual(rangeOutside({ first: 1024, last: 40_000 }), { first: 40_001, last: 65_535 });
    assert.deepEqual(rangeOutside({ first: 15_000, last: 30_000 }), { first: 30_001, last: 65_535 });
    assert.throws(() => rangeOutside({ first: 1024, last: 65_535 }), /leave no 256 others/);
  });
});

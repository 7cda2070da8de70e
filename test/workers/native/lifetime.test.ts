import { strict as assert } from 'node:assert';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { AfXdpDriver } from '../../../workers/drivers/af-xdp.js';
import { Umem } from '../../../workers/drivers/umem.js';
import {
  bpfMapCreate,
  closeDescriptor,
  eventCreate,
  isNativeError,
  xskBind,
  xskOpen,
} from '../../../workers/native/index.js';
import { needs } from '../../support/require.js';
import { inThread } from './in-thread.js';
import { Veth } from './veth.js';

/** Open descriptors of the process of the kinds this binding opens. */
function descriptors(): string[] {
  return readdirSync('/proc/self/fd')
    .map((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`);
      } catch {
        return ''; // the listing's own
      }
    })
    .filter((name) => /bpf|eventfd|socket/.test(name))
    .map((name) => name.replace(/\[?\d+\]?/, ''))
    .sort();
}

/** Mappings of sockets: the rings. */
const ringMappings = (): number => readFileSync('/proc/self/maps', 'utf8').split('socket:').length - 1;

/** Worker threads open descriptors of their own, which go a moment after they end. */
async function settled<T>(wanted: T, probe: () => T): Promise<void> {
  for (let i = 0; i < 200; i++) {
    try {
      assert.deepEqual(probe(), wanted);
      return;
    } catch {
      await sleep(10);
    }
  }
  assert.deepEqual(probe(), wanted);
}

describe('the native binding: what was opened is closed', () => {
  let veth: Veth;
  before(function () {
    needs(this, 'af_xdp', 'tool:ethtool');
    veth = new Veth();
  });
  after(() => veth?.down());

  it('when a thread ends, all of it, and the queue can be bound again', async () => {
    await inThread(() => undefined); // what Node itself opens for its first thread stays
    const before = descriptors();
    const rings = ringMappings();
    for (let round = 0; round < 3; round++) {
      const seen = await inThread(
        async (_, { module, name }: { module: string; name: string }) => {
          const { AfXdpDriver } = (await import(module)) as typeof import('../../../workers/drivers/af-xdp.js');
          const driver = new AfXdpDriver({ ports: [{ interface: name, filter: { mode: 'all' } }], ringSize: 64 });
          const maps = process.getBuiltinModule('node:fs').readFileSync('/proc/self/maps', 'utf8');
          return { rings: maps.split('socket:').length - 1, kicks: driver.statistics()[0].kicks };
        },
        { module: new URL('../../../workers/drivers/af-xdp.js', import.meta.url).href, name: veth.near },
      );
      assert.equal(seen.rings, rings + 4);
      await settled(before, descriptors);
      assert.equal(ringMappings(), rings);
    }
  });

  it('when a driver is closed, twice if need be', () => {
    const before = descriptors();
    const rings = ringMappings();
    const driver = new AfXdpDriver({ ports: [{ interface: veth.near }], ringSize: 64 });
    assert.equal(
      descriptors().length,
      before.length + 7,
      'map, counter, program, link, packet socket, socket, eventfd',
    );
    driver.close();
    driver.close();
    assert.deepEqual(descriptors(), before);
    assert.equal(ringMappings(), rings);
  });

  it('when a driver cannot be opened half-way', () => {
    const before = descriptors();
    assert.throws(
      () => new AfXdpDriver({ ports: [{ interface: veth.near }, { interface: 'ct-absent' }], ringSize: 64 }),
      (error: unknown) => isNativeError(error, 'ENODEV'),
    );
    assert.deepEqual(descriptors(), before);
  });

  it('and views of a closed socket are empty, never a fault', () => {
    const umem = new Umem(64, 2048);
    const socket = xskOpen(veth.near, umem.memory.u8, 2048, 2, 64, false);
    const words = new Int32Array(socket.rx.buffer);
    words[socket.rx.producer >>> 2] = 1;
    closeDescriptor(socket.fd);
    assert.equal(words.length, 0);
    assert.equal(words[socket.rx.producer >>> 2], undefined);
    assert.throws(() => Atomics.load(words, 0), TypeError);
    assert.throws(() => closeDescriptor(socket.fd), { code: 'EBADF' });
    assert.throws(() => xskBind(socket.fd, veth.near, 0, 0, -1), { code: 'EBADF' });
  });

  it('by its own thread alone', async () => {
    const fd = eventCreate();
    const map = bpfMapCreate(1, 'test');
    const codes = await inThread(
      (native, fds: number[]) =>
        fds.map((number) => {
          try {
            native.closeDescriptor(number);
            return 'closed';
          } catch (error) {
            return (error as { code: string }).code;
          }
        }),
      [fd, map, 0, 1, 2],
    );
    assert.deepEqual(codes, ['EBADF', 'EBADF', 'EBADF', 'EBADF', 'EBADF']);
    closeDescriptor(map);
    closeDescriptor(fd);
  });
});

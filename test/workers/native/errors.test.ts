import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { AfXdpDriver } from '../../../workers/drivers/af-xdp.js';
import { Umem } from '../../../workers/drivers/umem.js';
import { attachXdp } from '../../../workers/drivers/xdp-attach.js';
import { BpfAssembler, Register } from '../../../workers/native/bpf-assembler.js';
import {
  bpfProgramLoad,
  closeDescriptor,
  eventCreate,
  eventSignal,
  interfaceFacts,
  interfaceNeighbours,
  type NativeError,
  setOffloads,
  waitReadable,
  xskBind,
  xskOpen,
} from '../../../workers/native/index.js';
import { needs } from '../../support/require.js';
import { Veth } from './veth.js';

const ALL = { mode: 'all' } as const;

/** Asserts what every failure promises: errno as Node has it, the call, on what, and what to do. */
function fails(work: () => unknown, code: string, syscall: string, ...says: RegExp[]): void {
  assert.throws(work, (error: NativeError) => {
    assert.ok(error instanceof Error);
    assert.equal(error.code, code, error.message);
    assert.equal(error.syscall, syscall);
    assert.ok(error.errno < 0);
    for (const pattern of [new RegExp(code), ...says]) assert.match(error.message, pattern);
    return true;
  });
}

describe('the native binding: errors say what to do', () => {
  let veth: Veth;
  before(function () {
    needs(this, 'af_xdp', 'tool:ethtool');
    veth = new Veth();
  });
  after(() => veth?.down());

  it('no such interface', () => {
    fails(() => interfaceFacts('ct-absent'), 'ENODEV', 'ioctl', /ct-absent/, /no such interface/);
    fails(() => interfaceNeighbours('ct-absent'), 'ENODEV', 'if_nametoindex', /ct-absent/, /no such interface/);
    fails(() => attachXdp('ct-absent', 'auto', ALL), 'ENODEV', 'ioctl', /ct-absent/);
    fails(() => setOffloads('ct-absent', { gro: false }), 'ENODEV', 'ioctl', /gro of ct-absent/);
    const socket = xskOpen('ct-absent', new Umem(64, 2048).memory.u8, 2048, 2, 64, false);
    fails(() => xskBind(socket.fd, 'ct-absent', 0, 0, -1), 'ENODEV', 'bind', /ct-absent queue 0/);
    closeDescriptor(socket.fd);
  });

  it('a queue the interface has not', () => {
    const port = { interface: veth.near, queues: [3] };
    fails(() => new AfXdpDriver({ ports: [port], ringSize: 64 }), 'EINVAL', 'bind', /queue 3/, /no such queue/);
  });

  it('a queue in use', function () {
    this.timeout(20_000);
    const first = new AfXdpDriver({ ports: [{ interface: veth.near }], ringSize: 64 });
    try {
      const socket = xskOpen('second', new Umem(64, 2048).memory.u8, 2048, 2, 64, false);
      fails(() => xskBind(socket.fd, veth.near, 0, 0, -1), 'EBUSY', 'bind', /queue 0/, /in use by another/);
      closeDescriptor(socket.fd);
      // With a map given, the driver is past attaching, and waits a while for a dying worker to let
      // go of the queue.
      fails(() => new AfXdpDriver({ ports: [{ interface: veth.near, mapFd: 0 }], ringSize: 64 }), 'EBUSY', 'bind');
    } finally {
      first.close();
    }
  });

  it('a program attached already, in the same or in the other mode', () => {
    const first = attachXdp(veth.near, 'native', ALL);
    try {
      fails(() => attachXdp(veth.near, 'native', ALL), 'EBUSY', 'bpf', new RegExp(veth.near), /attached .* already/);
      fails(() => attachXdp(veth.near, 'generic', ALL), 'EEXIST', 'bpf', /other mode/);
      fails(() => attachXdp(veth.near, 'auto', ALL), 'EBUSY', 'bpf', /ip link set dev … xdp off/);
    } finally {
      first.close();
    }
    attachXdp(veth.near, 'generic', ALL).close();
  });

  it('a driver without native XDP, where auto takes generic', () => {
    const bridge = `ctb${process.pid.toString(36)}`;
    execFileSync('ip', ['link', 'add', bridge, 'type', 'bridge']);
    try {
      fails(() => attachXdp(bridge, 'native', ALL), 'EOPNOTSUPP', 'bpf', /mode generic/);
      const attachment = attachXdp(bridge, 'auto', ALL);
      assert.equal(attachment.mode, 'generic');
      attachment.close();
    } finally {
      execFileSync('ip', ['link', 'del', bridge]);
    }
  });

  it('a program the verifier refuses, with what it said', () => {
    const code = new BpfAssembler().move(Register.R0, Register.R7).exit().assemble();
    fails(() => bpfProgramLoad(code, 'bad'), 'EACCES', 'bpf', /2 instructions for bad/, /R7 !read_ok/);
    assert.throws(() => bpfProgramLoad(code.subarray(1), 'bad'), RangeError);
  });

  it('a descriptor that is not what it should be', () => {
    const event = eventCreate();
    fails(() => xskBind(event, veth.near, 0, 0, -1), 'EBADF', 'descriptor', /is not an AF_XDP socket that this thread/);
    fails(() => eventSignal(1), 'EBADF', 'descriptor', /1 is not an eventfd that this process/);
    fails(() => waitReadable(Int32Array.of(event, 60_000), 0), 'EBADF', 'poll', /60000 is not open/);
    closeDescriptor(event);
  });

  it('packet memory of the wrong kind', () => {
    const memory = new Umem(64, 2048).memory.u8;
    fails(() => xskOpen('p', memory.subarray(1), 2048, 2, 64, false), 'EINVAL', 'setsockopt', /start on a page/);
    fails(() => xskOpen('p', memory, 3000, 2, 64, false), 'EINVAL', 'setsockopt', /2048 or 4096/);
    fails(() => xskOpen('p', memory, 2048, 2, 63, false), 'EINVAL', 'setsockopt', /power of two/);
    assert.throws(() => xskOpen('p', new Uint8Array(1 << 17), 2048, 2, 64, false), /SharedArrayBuffer/);
  });
});

describe('the native binding: errors without privileges', () => {
  const script = fileURLToPath(new URL('./unprivileged.js', import.meta.url));

  /** The message of what fails in a process that lacks a capability. */
  function without(capabilities: string, what: string): string {
    const drop = capabilities
      .split(',')
      .map((name) => `-${name}`)
      .join(',');
    return execFileSync(
      'setpriv',
      ['--bounding-set', drop, '--inh-caps', drop, 'prlimit', '--memlock=65536', process.execPath, script, what],
      { encoding: 'utf8' },
    );
  }

  before(function () {
    needs(this, 'root', 'tool:setpriv', 'tool:prlimit');
  });

  it('without CAP_NET_RAW', () => {
    assert.match(without('net_raw', 'socket'), /^socket: .*EPERM.*CAP_NET_RAW/);
  });

  it('without CAP_BPF and CAP_SYS_ADMIN', () => {
    assert.match(without('bpf,sys_admin', 'program'), /^bpf: .*EPERM.*CAP_BPF and CAP_NET_ADMIN/);
  });

  it('with too low a RLIMIT_MEMLOCK', () => {
    assert.match(without('ipc_lock', 'memory'), /^setsockopt: .*ENOBUFS.*RLIMIT_MEMLOCK.*LimitMEMLOCK=.*ulimit -l/);
  });

  it('without CAP_NET_ADMIN', () => {
    assert.match(without('net_admin', 'offload'), /^ioctl: .*EPERM.*CAP_NET_ADMIN/);
  });
});

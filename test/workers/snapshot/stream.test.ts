import { strict as assert } from 'node:assert';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { INCARNATIONS_FLOATS } from '../../../shm/board-records.js';
import { forkSnapshot } from '../../../workers/native/index.js';
import { newKey } from '../../../workers/replication/wire/cluster-key.js';
import { type FetchOptions, fetchSnapshot, RefusedError } from '../../../workers/snapshot/client.js';
import { ArenaCopy, type Fork } from '../../../workers/snapshot/fork.js';
import { type Circle, HELLO_BYTES } from '../../../workers/snapshot/handshake.js';
import type { SnapshotHead, SnapshotShape } from '../../../workers/snapshot/head.js';
import { SnapshotServer, type SnapshotServerOptions } from '../../../workers/snapshot/server.js';
import { children, openDescriptors, soon } from '../../support/process.js';

const SHAPE: SnapshotShape = { objects: 1, slots: 2, arenaBytes: 3 << 20, layout: [3, -4], shapes: [{}] };
const HEAD: SnapshotHead = {
  donor: 0,
  unixMs: 1_800_000_000_000,
  lacks: [1],
  vectors: {
    present: [
      [
        { incarnation: 7, contiguous: 12, ranges: [] },
        { incarnation: 9, contiguous: 3, ranges: [5, 6, 9, 9] },
      ],
    ],
    former: [
      [
        { incarnation: 0, contiguous: 0, ranges: [] },
        { incarnation: 8, contiguous: 4, ranges: [] },
      ],
    ],
    incarnations: [
      new Array<number>(INCARNATIONS_FLOATS).fill(0),
      [9, 8, 1, ...new Array<number>(INCARNATIONS_FLOATS - 3).fill(0)],
    ],
  },
};
const [CLIENT, SERVER] = [21, 11];
const key = newKey(1);
const circle = (keys = [key]): Circle => ({ clusterId: 5, meaningHash: [1, -2], keys });

const state = new Uint8Array(new SharedArrayBuffer(SHAPE.arenaBytes));
for (let i = 0; i < state.length; i++) state[i] = (i * 7919) >>> 5;

function forkOf(memory: Uint8Array): Fork {
  const { child, pipe } = forkSnapshot(memory, new Uint8Array(new SharedArrayBuffer(8)), new Float64Array(0));
  const copy = new ArenaCopy(child, pipe, memory.length);
  const done = async (): Promise<void> => void (await copy.end());
  return { head: HEAD, copy, pauseUs: 1, gatherUs: 1, forkUs: 1, done };
}

/** Between client and server: `change` sees what the server sends, numbered by bytes. */
async function middle(port: number, change: (bytes: Buffer, at: number, ends: Socket[]) => Buffer): Promise<Server> {
  const server = createServer((client) => {
    const donor = connect(port, '127.0.0.1');
    let at = 0;
    donor.on('data', (bytes: Buffer) => {
      const changed = change(bytes, at, [client, donor]);
      at += bytes.length;
      if (!client.destroyed) client.write(changed);
    });
    client.pipe(donor);
    donor.on('end', () => client.end());
    for (const socket of [client, donor]) socket.on('error', () => {});
    client.on('close', () => donor.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}

const portOf = (server: Server): number => (server.address() as { port: number }).port;

describe('a snapshot from donor to newcomer', () => {
  let server: SnapshotServer | null = null;
  let relay: Server | null = null;
  let logged: string[] = [];
  let descriptors: string[];
  let before: Record<number, string>;

  beforeEach(async () => {
    const warm = createServer().listen(0); // what libuv opens at the first socket stays
    await once(warm, 'listening');
    warm.close();
    await once(warm, 'close');
    logged = [];
    descriptors = openDescriptors();
    before = children();
  });
  afterEach(async () => {
    await server?.close();
    relay?.close();
    server = relay = null;
    assert.ok(await soon(() => openDescriptors().length <= descriptors.length), 'no descriptor is left');
    assert.deepEqual(children(), before, 'no child, and no zombie');
  });

  async function donor(options: Partial<SnapshotServerOptions> = {}): Promise<SnapshotServer> {
    server = await SnapshotServer.listen({
      host: '127.0.0.1',
      port: 0,
      self: SERVER,
      circle: circle(),
      shape: SHAPE,
      fork: () => forkOf(state),
      log: (_, text) => logged.push(text),
      ...options,
    });
    return server;
  }

  function ask(
    options: Partial<FetchOptions> & { readonly into?: Uint8Array } = {},
  ): Promise<SnapshotHead> & { into: Uint8Array } {
    const into = options.into ?? new Uint8Array(SHAPE.arenaBytes);
    const fetched = fetchSnapshot({
      client: CLIENT,
      server: SERVER,
      address: '127.0.0.1',
      port: server?.port ?? 0,
      circle: circle(),
      shape: SHAPE,
      log: () => {},
      place: () => into,
      ...options,
    });
    return Object.assign(fetched, { into });
  }

  it('comes whole, with the vectors, and shows how far it is', async () => {
    await donor();
    const seen: number[] = [];
    const fetched = ask({
      onProgress: (progress) => seen.push(progress.total),
      log: (text) => logged.push(text),
    });
    assert.deepEqual(await fetched, HEAD);
    assert.ok(Buffer.from(fetched.into).equals(Buffer.from(state)));
    assert.ok(seen[0] > SHAPE.arenaBytes);
    assert.ok(logged.some((text) => /snapshot from member 11: 100 % of 3\.0 MiB at [\d.]+ MiB\/s/.test(text)));
    assert.ok(await soon(() => server?.counts.served === 1));
    assert.ok(logged.some((text) => /snapshot for member 21 sent: 100 %/.test(text)));
  });

  it('comes without a key where neither has one', async () => {
    await donor({ circle: circle([]) });
    const fetched = ask({ circle: circle([]) });
    assert.deepEqual(await fetched, HEAD);
    assert.ok(Buffer.from(fetched.into).equals(Buffer.from(state)));
  });

  it('twice in quick succession, while keys are changed', async () => {
    const newer = newKey(2);
    await donor({ circle: circle([newer, key]) });
    for (const keys of [[key, newer], [newer, key], [key]]) {
      while (server?.progress !== null) await sleep(1);
      assert.deepEqual(await ask({ circle: circle(keys) }), HEAD);
      await soon(() => server?.progress === null);
    }
  });

  it('is refused, with the reason, where the donor cannot, and while another is under way', async () => {
    let reason: string | null = 'has no state yet';
    await donor({ refuse: () => reason });
    await assert.rejects(
      ask(),
      (error: unknown) => error instanceof RefusedError && /has no state yet/.test(error.message),
    );
    reason = null;
    const into = new Uint8Array(SHAPE.arenaBytes);
    let second: Promise<SnapshotHead> | null = null;
    const first = ask({
      into,
      onProgress: () => {
        second = ask();
        second.catch(() => {});
      },
    });
    await first;
    // It came while the first was under way, or just after; either is well.
    await (second as unknown as Promise<SnapshotHead>).then(
      (head) => assert.deepEqual(head, HEAD),
      (error: unknown) => assert.match(String(error), /busy/),
    );
  });

  it('is refused with the reason of a fork that failed', async () => {
    await donor({
      fork: () => {
        throw new Error('thread worker-1 did not come to rest');
      },
    });
    await assert.rejects(ask(), /refuses: thread worker-1 did not come to rest/);
  });

  const strangers: readonly [string, Partial<FetchOptions>, RegExp][] = [
    ['with another key', { circle: circle([newKey(1)]) }, /did not prove|ended too early/],
    ['with a key nobody knows', { circle: circle([newKey(3)]) }, /ended too early/],
    ['without a key', { circle: circle([]) }, /ended too early/],
    ['of another cluster', { circle: { ...circle(), clusterId: 6 } }, /ended too early/],
    ['with other state objects', { circle: { ...circle(), meaningHash: [1, 2] } }, /ended too early/],
    ['that asks another member', { server: 12 }, /ended too early/],
  ];
  for (const [who, options, problem] of strangers)
    it(`is not given to a stranger ${who}, for whom nobody forks`, async () => {
      let forks = 0;
      await donor({
        fork: () => {
          forks++;
          return forkOf(state);
        },
      });
      await assert.rejects(ask(options), problem);
      assert.equal(forks, 0);
      assert.ok(await soon(() => server?.counts.rejected === 1));
      assert.deepEqual(await ask(), HEAD, 'and the next is served');
    });

  it('is not taken from a donor without the key', async () => {
    await donor({ circle: circle([newKey(1)]) });
    await assert.rejects(ask(), /did not prove that it has the cluster key|ended too early/);
  });

  it('cannot be asked for again with what was recorded', async () => {
    await donor();
    const said: Buffer[] = [];
    relay = createServer((client) => {
      const to = connect(server?.port ?? 0, '127.0.0.1');
      client.on('data', (bytes: Buffer) => said.push(bytes));
      client.pipe(to).pipe(client);
      for (const socket of [client, to]) socket.on('error', () => {});
      client.on('close', () => to.destroy());
    });
    relay.listen(0, '127.0.0.1');
    await once(relay, 'listening');
    await ask({ port: portOf(relay) });
    await soon(() => server?.progress === null);
    const again = connect(server?.port ?? 0, '127.0.0.1');
    let heard = 0;
    again.on('data', (bytes: Buffer) => {
      heard += bytes.length;
    });
    again.write(Buffer.concat(said));
    await once(again, 'close');
    assert.equal(heard, 0, 'not even a challenge');
    assert.equal(server?.counts.rejected, 1);
  });

  /**
   * Connections to the donor from which `say` comes at most; each that is closed is opened again.
   */
  function crowd(count: number, say: Buffer | null): { readonly opened: () => number; readonly end: () => void } {
    const held = new Set<Socket>();
    let opened = 0;
    let over = false;
    const open = (): void => {
      if (over) return;
      opened++;
      const socket = connect(server?.port ?? 0, '127.0.0.1');
      held.add(socket);
      if (say !== null) socket.write(say);
      socket.on('error', () => {});
      socket.on('close', () => {
        held.delete(socket);
        setTimeout(open, 5);
      });
    };
    for (let i = 0; i < count; i++) open();
    const end = (): void => {
      over = true;
      for (const socket of held) socket.destroy();
    };
    return { opened: () => opened, end };
  }

  for (const idle of [20, 300])
    it(`comes while ${idle} connections say nothing, though each that is closed comes again`, async () => {
      await donor();
      const idlers = crowd(idle, null);
      try {
        await sleep(100);
        for (let i = 0; i < 5; i++) {
          assert.deepEqual(await ask(), HEAD);
          await soon(() => server?.progress === null);
        }
      } finally {
        idlers.end();
      }
      const warnings = logged.filter((text) => text.includes('asked for from'));
      assert.ok(warnings.length <= 8, `${warnings.length} warnings`);
    });

  it('comes while a recorded request is made again and again, which takes no place', async () => {
    await donor();
    const said: Buffer[] = [];
    relay = await middle(server?.port ?? 0, (bytes) => bytes);
    relay.on('connection', (client: Socket) => client.on('data', (bytes: Buffer) => said.push(bytes)));
    await ask({ port: portOf(relay) });
    await soon(() => server?.progress === null);
    const recorded = Buffer.concat(said).subarray(0, HELLO_BYTES);
    const repeaters = crowd(20, recorded);
    try {
      assert.ok(await soon(() => (server?.counts.rejected ?? 0) >= 40), 'each is refused at once');
      assert.deepEqual(await ask(), HEAD);
    } finally {
      repeaters.end();
    }
  });

  const damages: readonly [string, (bytes: Buffer, at: number, ends: Socket[]) => Buffer][] = [
    ['a bit turned in the challenge', flip(40)],
    ['a bit turned in a length', flip(80)],
    ['a bit turned in the head', flip(80 + 8 + 30)],
    ['a bit turned in the state', flip(1 << 20)],
    ['its end cut off', (bytes, at, ends) => cut(bytes, at, ends, SHAPE.arenaBytes)],
    ['its middle cut out', (bytes, at) => (at > 1 << 20 && at < (1 << 20) + 70_000 ? Buffer.alloc(0) : bytes)],
    ['noise behind the challenge', (bytes, at) => (at === 0 ? bytes : Buffer.alloc(bytes.length, 0xa5))],
  ];
  // Without a key nobody proves anything: a challenge may be what it wants.
  for (const keys of [[key], []])
    for (const [what, change] of keys.length > 0 ? damages : damages.slice(1))
      it(`is refused with ${what}, ${keys.length > 0 ? 'under a key' : 'without one'}`, async () => {
        await donor({ circle: circle(keys) });
        relay = await middle(server?.port ?? 0, change);
        await assert.rejects(ask({ circle: circle(keys), port: portOf(relay), idleMs: 1_000, connectMs: 1_000 }));
        assert.ok(await soon(() => server?.progress === null));
        assert.deepEqual(await ask({ circle: circle(keys) }), HEAD, 'the next is whole');
      });

  it('breaks off where the child dies, and the next is whole', async () => {
    let fork: Fork | null = null;
    await donor({
      fork: () => {
        fork = forkOf(state);
        return fork;
      },
    });
    const failed = ask({ onProgress: () => void fork?.copy.end() });
    await assert.rejects(failed, /too early/);
    assert.ok(await soon(() => server?.counts.failed === 1));
    assert.deepEqual(await ask(), HEAD);
  });

  it('breaks off where the newcomer goes away or takes nothing more, and the next is whole', async () => {
    await donor({ idleMs: 2_000, fork: () => forkOf(new Uint8Array(new SharedArrayBuffer(32 << 20))), shape: large });
    const gone = new AbortController();
    const into = new Uint8Array(large.arenaBytes);
    await assert.rejects(
      ask({ shape: large, into, signal: gone.signal, onProgress: () => gone.abort() }),
      (error: unknown) => error instanceof Error && error.name === 'AbortError',
    );
    assert.ok(await soon(() => server?.counts.failed === 1 && server.progress === null));
    relay = await middle(server?.port ?? 0, (bytes, _, [, from]) => {
      from.pause();
      return bytes;
    });
    await assert.rejects(ask({ shape: large, into, port: portOf(relay), idleMs: 3_000 }), /nothing moved|too early/);
    assert.ok(await soon(() => server?.counts.failed === 2 && server.progress === null));
    assert.deepEqual(await ask({ shape: large, into }), HEAD);
  });
  const large: SnapshotShape = { ...SHAPE, arenaBytes: 32 << 20 };

  it('is refused where the donor’s state is of another size', async () => {
    await donor({ shape: { ...SHAPE, slots: 3 } });
    await assert.rejects(ask(), /a snapshot of 3 slots; here are 2/);
  });
});

function flip(where: number): (bytes: Buffer, at: number) => Buffer {
  return (bytes, at) => {
    if (at <= where && where < at + bytes.length) bytes[where - at] ^= 0x10;
    return bytes;
  };
}

function cut(bytes: Buffer, at: number, ends: Socket[], where: number): Buffer {
  if (at + bytes.length < where) return bytes;
  for (const end of ends) end.destroy();
  return bytes;
}

/**
 * What sealing costs: processor time per message over loopback, with one thread that sends and
 * receives, sealed beside unsealed; and the parts of sealing alone. Messages have a single NAT
 * binding, or the maximum length.
 */

import { createMemberTable, MemberTableWriter, Role } from '../../shm/members.js';
import { createSealBoard } from '../../shm/seal-board.js';
import { messageBytes, newIncarnation, replicationSettings } from '../../workers/replication/settings.js';
import { newKey } from '../../workers/replication/wire/cluster-key.js';
import { Opener, SEAL_BYTES, Sealer } from '../../workers/replication/wire/seal.js';
import { SealingSender } from '../../workers/transport/sealing.js';
import type { SendTransport } from '../../workers/transport/transport.js';
import { UnicastReceiver, UnicastSender } from '../../workers/transport/unicast.js';
import { freePort } from '../support/ports.js';
import { type BenchOptions, type BenchResult, median } from './result.js';

const ROUNDS = 5;
const BATCH = 64;
const SHORT_BYTES = 160;

class Bed {
  readonly settings: ReturnType<typeof replicationSettings>;
  readonly sealer: Sealer;
  readonly opener: Opener;
  readonly longest: number;

  constructor(port: number) {
    const members = [1, 2].map((id) => ({ id, name: `m${id}`, address: '127.0.0.1', port }));
    const settings = replicationSettings({ clusterId: 1, self: 1, members });
    this.settings = settings;
    this.longest = messageBytes(settings);
    const table = createMemberTable(2);
    const entries = members.map((member) => ({ ...member, role: Role.MEMBER, dead: 0 }));
    new MemberTableWriter(table).write(1, entries);
    const keys = [newKey(1)];
    const { clusterId } = settings;
    const incarnation = newIncarnation();
    this.sealer = new Sealer({ clusterId, sender: 1, incarnation, board: createSealBoard(2, keys) });
    this.opener = new Opener({
      clusterId,
      self: 2,
      members: table,
      messageBytes: this.longest,
      board: createSealBoard(2, keys),
      now: 0,
    });
  }
}

/** Processor time per call of `work`, in µs, over about `ms`. */
function timed(ms: number, work: () => void): number {
  const start = process.cpuUsage();
  const end = performance.now() + ms;
  let calls = 0;
  while (performance.now() < end)
    for (let i = 0; i < BATCH; i++) {
      work();
      calls++;
    }
  const { user, system } = process.cpuUsage(start);
  return (user + system) / calls;
}

/** Processor time per message sent to and received by this thread, in µs. */
async function overLoopback(bed: Bed, bytes: number, sealed: boolean, ms: number): Promise<number> {
  const network = new UnicastSender(bed.settings);
  const sender: SendTransport = sealed ? new SealingSender(network, bed.sealer) : network;
  const receiver = new UnicastReceiver({ ...bed.settings, self: 2 });
  let received = 0;
  await receiver.open((datagram) => {
    if (sealed && bed.opener.open(datagram, 0) !== null) throw new Error('a datagram was not opened');
    received++;
  });
  await sender.open();
  const start = process.cpuUsage();
  const end = performance.now() + ms;
  let sent = 0;
  while (performance.now() < end) {
    for (let i = 0; i < BATCH; i++, sent++) {
      const datagram = sender.claim();
      if (datagram === null) break;
      sender.send(datagram, bytes, 0, 1, 0, 0);
    }
    while (received < sent) await new Promise((resolve) => setImmediate(resolve));
  }
  const { user, system } = process.cpuUsage(start);
  await sender.close();
  await receiver.close();
  return (user + system) / sent;
}

function parts(bed: Bed, bytes: number, ms: number): { seal: number; open: number; forged: number; replayed: number } {
  const memory = new Uint8Array(bytes + SEAL_BYTES);
  const fail = (): never => {
    throw new Error('the opener did not do what is measured');
  };
  const seal = timed(ms, () => void bed.sealer.seal(memory, bytes));
  const both = timed(ms, () => {
    bed.sealer.seal(memory, bytes);
    if (bed.opener.open(memory, 0) !== null) fail();
  });
  const replayed = timed(ms, () => {
    if (bed.opener.open(memory, 0) !== 'seal_replay') fail();
  });
  bed.sealer.seal(memory, bytes);
  memory[memory.length - 1] ^= 1;
  const forged = timed(ms, () => {
    if (bed.opener.open(memory, 0) !== 'seal_forged') fail();
  });
  return { seal, open: both - seal, forged, replayed };
}

export async function run({ seconds }: BenchOptions): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  const bed = new Bed(await freePort());
  const ms = (seconds * 1000) / ROUNDS;
  for (const bytes of [SHORT_BYTES, bed.longest]) {
    const unsealed: number[] = [];
    const sealed: number[] = [];
    const alone: Record<string, number[]> = { seal: [], open: [], forged: [], replayed: [] };
    for (let round = 0; round < ROUNDS; round++) {
      unsealed.push(await overLoopback(bed, bytes, false, ms));
      sealed.push(await overLoopback(bed, bytes, true, ms));
      for (const [part, us] of Object.entries(parts(bed, bytes, ms / 4))) alone[part].push(us);
    }
    const name = (what: string): string => `seal/${bytes} bytes, ${what}`;
    const unit = 'µs CPU/message';
    const baseline = median(unsealed);
    const value = median(sealed);
    results.push({ name: name('sent and received unsealed'), value: baseline, unit, baseline: null, ratio: null });
    results.push({ name: name('sent and received sealed'), value, unit, baseline, ratio: baseline / value });
    for (const [part, label] of [
      ['seal', 'sealing alone'],
      ['open', 'opening alone'],
      ['forged', 'refusing a forged one'],
      ['replayed', 'refusing a replayed one'],
    ])
      results.push({ name: name(label), value: median(alone[part]), unit, baseline: null, ratio: null });
  }
  return results;
}

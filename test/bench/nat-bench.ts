/** The parser and the NAT over the memory driver, as the NAT benchmark measures them. */

import { Arena, createArena, layoutArena } from '../../shm/arena.js';
import { coarseSeconds } from '../../shm/clock.js';
import { createEventRing, EventWriter } from '../../shm/events.js';
import { createHoldBoard } from '../../shm/hold-board.js';
import { createLogRing, LogConsumer, LogProducer } from '../../shm/log.js';
import { MetricCatalogue, Metrics } from '../../shm/metrics.js';
import { NONE } from '../../shm/none.js';
import { createJournals, Journal } from '../../shm/objects/core/journal.js';
import { type NatBinding, portAndProtocol, Rank } from '../../shm/objects/nat/nat-binding.js';
import { PortBoardReader } from '../../shm/port-board.js';
import { createRecordRing, RecordWriter } from '../../shm/record-ring.js';
import type { Process } from '../../workers/api/middlebox.js';
import { Timers } from '../../workers/api/timers.js';
import { MemoryDriver } from '../../workers/drivers/memory.js';
import nat from '../../workers/middleboxes/nat/index.js';
import { adviseMemory } from '../../workers/native/index.js';
import { Batch } from '../../workers/packet/batch.js';
import { checksum, sumBytes } from '../../workers/packet/checksum.js';
import { createParser } from '../../workers/packet/parse.js';
import { peersOf } from '../../workers/packet/ports.js';
import { TcpFlag } from '../../workers/packet/tcp.js';
import { declareChain, openProcesses, openState } from '../../workers/plane/chain.js';
import { dataPlaneMetrics } from '../../workers/plane/data-plane.js';
import { createHolds } from '../../workers/plane/holds.js';
import { createReplies } from '../../workers/plane/replies.js';
import { portBoardFor, routePort } from '../workers/support/plane.js';

const INSIDE = 0;
const OUTSIDE = 1;
const TCP = 6;
const REMOTE = 0x076433c6;
const REMOTE_PORT = 0x5000; // 80, raw
const FIRST_EXTERNAL = 0x0a0200c0;
const PORTS_USED = 60_000;
const FRAME_BYTES = 54;

export class NatBench {
  readonly bindings: NatBinding;
  readonly log: LogProducer;
  private readonly consumer: LogConsumer;
  private readonly driver: MemoryDriver;
  private readonly batch: Batch;
  private readonly parse: () => void;
  private readonly process: Process;
  private readonly metrics: Metrics;
  private draws = 1;
  private packets = 0;

  /** Makes a table for `flows`, with `bound` bindings and a frame for each. */
  constructor(flows: number, bound = flows) {
    const external = Array.from({ length: Math.ceil(flows / PORTS_USED) }, (_, i) => (FIRST_EXTERNAL + (i << 24)) | 0);
    const declaration = declareChain([
      { middlebox: nat, options: { inside: INSIDE, outside: OUTSIDE, external, flows, half_open_records: 1 << 30 } },
    ]);
    const catalogue = new MetricCatalogue([...dataPlaneMetrics(2), ...declaration.metrics]);
    this.metrics = new Metrics(catalogue, new SharedArrayBuffer(catalogue.bytes(1)), 1);
    const memory = createArena(layoutArena(declaration.objects));
    // The daemon asks for its arena in the same way, and so does the C loop for its tables.
    adviseMemory(new Uint8Array(memory), 'hugepage');
    touchPages(memory);
    const arena = new Arena(memory, declaration.objects);
    const ring = createLogRing(1 << 16);
    this.log = new LogProducer(ring);
    this.consumer = new LogConsumer(ring);
    const writer = { id: 1, journal: new Journal(createJournals(1), 1), log: this.log };
    const state = openState(declaration, arena, writer, { memberIndex: 0, memberCount: 1 });
    this.bindings = state[0] as NatBinding;
    this.driver = new MemoryDriver({ ports: 2, loop: true, capture: false });
    this.batch = new Batch(this.driver.memory, this.metrics.row(0));
    this.parse = createParser(this.batch, 'wire', peersOf(2), catalogue).parse;
    const row = this.metrics.row(0);
    const [{ process }] = openProcesses(declaration, state, {
      batch: this.batch,
      replies: createReplies(this.batch, new PortBoardReader(portBoardFor([routePort(), routePort()]), 2, 0)),
      holds: createHolds({
        batch: this.batch,
        driver: this.driver,
        fragmentation: null,
        log: this.log,
        board: createHoldBoard(1, 1),
        worker: 0,
        row,
        catalogue,
      }),
      timers: new Timers(row, catalogue),
      events: new EventWriter(createEventRing()),
      records: { writer: new RecordWriter(createRecordRing(0)), row, catalogue },
      worker: 0,
      row,
      catalogue,
      ports: 2,
      mode: 'route',
      mtus: new Int32Array(2).fill(1500),
      draining: () => false,
    });
    this.process = process;
    this.fill(bound);
  }

  /** Inside host and key of the n-th flow: distinct, and distributed as hosts and ports are. */
  address(n: number): number {
    return 0x0a | (Math.imul(n, 0x9e3779b1) & ~0xff) | 0;
  }

  key(n: number): number {
    return portAndProtocol(1024 + (Math.imul(n, 0x85ebca6b) >>> 17), TCP);
  }

  private draw(below: number): number {
    this.draws = (Math.imul(this.draws, 1664525) + 1013904223) | 0;
    return Math.trunc(((this.draws >>> 0) / 2 ** 32) * below);
  }

  private fill(count: number): void {
    const { bindings } = this;
    const now = coarseSeconds(Date.now());
    const slots = new Int32Array(count);
    for (let n = 0; n < count; n++) {
      const address = this.address(n);
      slots[n] = bindings.add(bindings.hash(address, this.key(n)), address, this.key(n), now, now + 7440);
      if (slots[n] === NONE) throw new Error(`flow ${n} was refused: ${bindings.refusal}`);
      bindings.refresh(slots[n], Rank.ESTABLISHED, now, 7440);
      this.log.publish();
      if (n % 1000 === 0) this.drain(() => {});
    }
    this.drain(() => {});
    for (let n = count - 1; n > 0; n--) {
      const other = this.draw(n + 1);
      [slots[n], slots[other]] = [slots[other], slots[n]];
    }
    for (const slot of slots) {
      const inside = [bindings.internalAddress(slot), bindings.internalPort(slot)] as const;
      const outside = [bindings.externalAddress(slot), bindings.externalPort(slot)] as const;
      if (this.draw(2) === 0) this.driver.inject(INSIDE, tcpFrame(...inside, REMOTE, REMOTE_PORT));
      else this.driver.inject(OUTSIDE, tcpFrame(REMOTE, REMOTE_PORT, ...outside));
    }
  }

  /** Passes every logged record to `take` and releases its space. */
  drain(take: (words: Int32Array, at: number, op: number, length: number) => void): void {
    const { consumer } = this;
    this.log.publish();
    while (consumer.next()) take(consumer.words, consumer.at, consumer.op, consumer.length);
    consumer.release();
  }

  /**
   * Nanoseconds of processor time per packet to parse and translate, over about `ms`: the time with
   * the driver's copying of frames, minus the time of the copying alone.
   */
  work(ms: number): number {
    const all = this.time(ms * 0.75, true);
    return all - this.time(ms * 0.25, false);
  }

  private time(ms: number, translating: boolean): number {
    let packets = 0;
    const before = process.cpuUsage();
    const end = performance.now() + ms;
    while (performance.now() < end) for (let i = 0; i < 16; i++) packets += this.round(translating);
    const { user, system } = process.cpuUsage(before);
    if (translating) this.packets += packets;
    return ((user + system) * 1e3) / packets;
  }

  private round(translating: boolean): number {
    const { batch } = this;
    const packets = this.driver.receive(batch);
    if (translating) {
      this.parse();
      this.process(coarseSeconds(Date.now()));
      if (this.log.publish()) this.drain(() => {});
    }
    this.driver.transmit(batch);
    return packets;
  }

  /** Throws unless every packet was translated. */
  check(): void {
    const translated = this.metrics.total('nat_outbound') + this.metrics.total('nat_inbound');
    if (translated !== this.packets) throw new Error(`${translated} of ${this.packets} packets were translated`);
  }
}

/** A TCP acknowledgement; addresses and ports are raw. */
function tcpFrame(source: number, sourcePort: number, destination: number, destinationPort: number): Uint8Array {
  const frame = new Uint8Array(FRAME_BYTES).fill(2, 0, 12);
  const view = new DataView(frame.buffer);
  view.setUint16(12, 0x0800);
  frame.set([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0], 14);
  view.setInt32(26, source, true);
  view.setInt32(30, destination, true);
  view.setUint16(24, checksum(frame, 14, 20), true);
  view.setUint16(34, sourcePort, true);
  view.setUint16(36, destinationPort, true);
  frame.set([0, 0, 0, 1, 0, 0, 0, 1, 0x50, TcpFlag.ACK, 0xff, 0xff], 38);
  view.setUint16(50, checksum(frame, 34, 20, sumBytes(frame, 26, 8) + (TCP << 8) + (20 << 8)), true);
  return frame;
}

/** Touches every page, so that the kernel does not clear pages during the measurement. */
function touchPages(memory: SharedArrayBuffer): void {
  const bytes = new Uint8Array(memory);
  for (let at = 0; at < bytes.length; at += 4096) bytes[at] = bytes[at] | 0;
}

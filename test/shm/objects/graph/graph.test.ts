import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { CLOCK_SKEW_GUARD_S, expiryAfter } from '../../../../shm/clock.js';
import { Applied } from '../../../../shm/objects/core/object.js';
import { GraphRefusal, graph, type TrafficGraph } from '../../../../shm/objects/graph/graph.js';
import { GRAPH_EDGE, HIGH_WORD_MAX } from '../../../../shm/objects/graph/graph-record.js';
import { Replica, type TestRecord } from '../replica.js';

const NOW = 70_000_000;
const TIMEOUT = 20;
const SITES = [0, 1, 2];

interface Undelivered extends TestRecord {
  readonly origin: number;
}

function apply(object: TrafficGraph, { op, words, origin }: Undelivered, now: number): Applied {
  return object.apply(op, Int32Array.from(words), 0, words.length, origin, now);
}

function edges(object: TrafficGraph, now: number): string[] {
  const lines: string[] = [];
  object.forEachEdge(now, (from, to, packets, bytes) => lines.push(`${from} → ${to}: ${packets} ${bytes}`));
  return lines.sort();
}

function degrees(object: TrafficGraph): string[] {
  const lines: string[] = [];
  object.forEachNode((node, out, into) => lines.push(`${node}: ${out} ${into}`));
  return lines.sort();
}

/** What every instance should hold: by edge and member, the plain way. */
class Model {
  private readonly entries = new Map<string, { generation: number; expires: number; packets: number; bytes: number }>();

  /** A member counts; `generation` is what its record says. */
  add(site: number, from: number, to: number, packets: number, bytes: number, now: number, generation: number): void {
    const key = `${from} ${to} ${site}`;
    const entry = this.entries.get(key);
    if (entry === undefined || entry.expires <= now) {
      assert.ok(generation > (entry?.generation ?? 0));
      this.entries.set(key, { generation, expires: Math.max(expiryAfter(now, TIMEOUT), generation), packets, bytes });
    } else {
      assert.equal(generation, entry.generation);
      entry.expires = Math.max(entry.expires, expiryAfter(now, TIMEOUT));
      entry.packets += packets;
      entry.bytes += bytes;
    }
  }

  edges(now: number): string[] {
    const sums = new Map<string, [number, number]>();
    for (const [key, { expires, packets, bytes }] of this.entries) {
      if (expires <= now) continue;
      const [from, to] = key.split(' ');
      const sum = sums.get(`${from} → ${to}`) ?? [0, 0];
      sums.set(`${from} → ${to}`, [sum[0] + packets, sum[1] + bytes]);
    }
    return [...sums].map(([edge, [packets, bytes]]) => `${edge}: ${packets} ${bytes}`).sort();
  }

  /** Of the edges not yet over, each once. */
  degrees(now: number): string[] {
    const seen = new Set<string>();
    const nodes = new Map<string, [number, number]>();
    const node = (id: string): [number, number] => {
      const there = nodes.get(id) ?? [0, 0];
      nodes.set(id, there);
      return there;
    };
    for (const [key, { expires }] of this.entries) {
      const [from, to] = key.split(' ');
      if (expires + CLOCK_SKEW_GUARD_S <= now || seen.has(`${from} ${to}`)) continue;
      seen.add(`${from} ${to}`);
      node(from)[0]++;
      node(to)[1]++;
    }
    return [...nodes].map(([id, [out, into]]) => `${id}: ${out} ${into}`).sort();
  }
}

describe('traffic dispersion graph', () => {
  it('converges to the sums of all members, in any order, repeated, coalesced and merged', () => {
    const definition = graph({ edges: 200, timeout: TIMEOUT, members: 3 });
    const step = fc.record({
      site: fc.nat({ max: 2 }),
      from: fc.nat({ max: 4 }),
      to: fc.nat({ max: 4 }),
      act: fc.constantFrom('add', 'add', 'add', 'deliver', 'deliver', 'wait', 'merge', 'sweep'),
      pick: fc.nat(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
        const sites = SITES.map((i) => new Replica(definition, i, 3));
        const undelivered: Undelivered[][] = [[], [], []];
        const model = new Model();
        let now = NOW;
        const deliver = (site: number, pick: number): void => {
          const queue = undelivered[site];
          const i = pick % queue.length;
          const j = (pick >> 4) % queue.length;
          let record = queue[i];
          const rest = [i];
          if (i !== j && queue[i].origin === queue[j].origin) {
            const both = Int32Array.from([...queue[i].words, ...queue[j].words]);
            if (sites[site].object.coalesce(GRAPH_EDGE, both, 0, queue[i].words.length)) {
              record = { ...record, words: [...both.subarray(0, queue[i].words.length)] };
              rest.push(j);
            }
          }
          undelivered[site] = queue.filter((_, n) => !rest.includes(n));
          const applied = apply(sites[site].object, record, now);
          assert.ok(applied === Applied.CHANGED || applied === Applied.UNCHANGED);
          if (pick % 3 === 0) assert.equal(apply(sites[site].object, record, now), Applied.UNCHANGED);
        };
        for (const { site, from, to, act, pick } of steps) {
          const { object, region } = sites[site];
          if (act === 'wait') now += pick % 15;
          else if (act === 'sweep') object.sweep(now, 100);
          else if (act === 'merge') sites[pick % 3].object.merge(region, now);
          else if (act === 'deliver') {
            if (undelivered[site].length > 0) deliver(site, pick);
          } else {
            assert.ok(object.add(from, to, pick % 7, pick % 1500, now));
            const records = sites[site].drain();
            assert.equal(records.length, 1);
            model.add(site, from, to, pick % 7, pick % 1500, now, records[0].words[2]);
            for (const other of SITES) if (other !== site) undelivered[other].push({ ...records[0], origin: site });
          }
        }
        for (const site of SITES)
          while (undelivered[site].length > 0) deliver(site, steps.length * 13 + undelivered[site].length);
        assert.equal(new Set(sites.map(({ object }) => object.digest(now))).size, 1);
        for (const { object } of sites) {
          assert.deepEqual(edges(object, now), model.edges(now));
          for (let i = 0; i < 2; i++) object.sweep(now, 512);
          assert.deepEqual(degrees(object), model.degrees(now));
          assert.equal(object.locksHeld(), 0);
          object.sweep(now + 1000, 512);
          assert.deepEqual(degrees(object), []);
          assert.equal(object.describe(now)['edges_used'], 0);
          assert.equal(object.describe(now)['nodes_used'], 0);
        }
      }),
      { numRuns: 250 },
    );
  });

  it('merges in any grouping to the same', () => {
    const definition = graph({ edges: 100, members: 3 });
    const sites = SITES.map((site) => {
      const replica = new Replica(definition, site, 3);
      for (let n = 0; n < 30; n++) replica.object.add(n % 5, 7 + (n % 3), 1, site, NOW + n);
      return replica;
    });
    const [left, right] = [new Replica(definition), new Replica(definition)];
    for (const { region } of sites) left.object.merge(region, NOW);
    right.object.merge(sites[1].region, NOW);
    sites[2].object.merge(sites[0].region, NOW);
    assert.ok(right.object.merge(sites[2].region, NOW) > 0);
    assert.equal(right.object.merge(sites[2].region, NOW), 0);
    assert.equal(left.object.digest(NOW), right.object.digest(NOW));
    assert.deepEqual(degrees(left.object), degrees(right.object));
    assert.equal(left.object.outDegree(3), 3);
    assert.equal(left.object.inDegree(8), 5);
    assert.equal(left.object.outDegree(99), 0);
    assert.ok(left.object.find(0, 7, NOW));
    assert.equal(left.object.packets, 6);
    assert.equal(left.object.bytes, 2 * (0 + 1 + 2));
  });

  it('counts past 32 bits', () => {
    const replica = new Replica(graph({ edges: 10 }));
    const { object } = replica;
    for (let i = 0; i < 5; i++) object.add(1, 2, 1, 0xffff_ffff, NOW);
    assert.ok(object.find(1, 2, NOW));
    assert.equal(object.bytes, 5 * 0xffff_ffff);
    const other = new Replica(graph({ edges: 10 }));
    for (const record of replica.drain()) apply(other.object, { ...record, origin: 0 }, NOW);
    assert.ok(other.object.find(1, 2, NOW));
    assert.equal(other.object.bytes, 5 * 0xffff_ffff);
  });

  it('refuses, says why and changes nothing when edges, nodes or the log are full', () => {
    const edgesFull = new Replica(graph({ edges: 10, nodes: 100 }));
    for (let n = 0; n < 10; n++) assert.ok(edgesFull.object.add(n, n + 1, 1, 1, NOW));
    assert.equal(edgesFull.object.add(50, 51, 1, 1, NOW), false);
    assert.equal(edgesFull.object.refusal, GraphRefusal.EDGES_FULL);
    assert.ok(edgesFull.object.add(3, 4, 1, 1, NOW), 'what is there is counted');
    assert.equal(edgesFull.object.outDegree(50), 0);
    assert.ok(edgesFull.object.add(50, 51, 1, 1, NOW + 1000), 'once others are over');

    const nodesFull = new Replica(graph({ edges: 100, nodes: 5 }));
    for (let n = 0; n < 4; n++) assert.ok(nodesFull.object.add(n, n + 1, 1, 1, NOW));
    const before = degrees(nodesFull.object);
    assert.equal(nodesFull.object.add(8, 9, 1, 1, NOW), false);
    assert.equal(nodesFull.object.refusal, GraphRefusal.NODES_FULL);
    assert.deepEqual(degrees(nodesFull.object), before);
    assert.ok(nodesFull.object.add(4, 0, 1, 1, NOW));
    const foreign = apply(nodesFull.object, { op: GRAPH_EDGE, words: [8, 9, NOW, NOW, 1, 0, 1, 0], origin: 1 }, NOW);
    assert.equal(foreign, Applied.FULL);
    assert.equal(nodesFull.object.describe(NOW)['nodes_full'], 2);

    const logFull = new Replica(graph({ edges: 1000 }), 0, 1, 1);
    let n = 0;
    while (logFull.object.add(n, n + 1, 1, 1, NOW)) n++;
    assert.equal(logFull.object.refusal, GraphRefusal.LOG_FULL);
    assert.equal(logFull.object.add(0, 1, 5, 5, NOW), false);
    assert.ok(logFull.object.find(0, 1, NOW));
    assert.equal(logFull.object.packets, 1);
    assert.equal(logFull.object.locksHeld(), 0);
    assert.equal(logFull.drain().length, n);
  });

  it('drops, counts and survives any words that are no edge', () => {
    const definition = graph({ edges: 40, timeout: TIMEOUT });
    const word = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 });
    fc.assert(
      fc.property(fc.nat({ max: 3 }), fc.array(word, { maxLength: 12 }), fc.nat({ max: 40 }), (op, words, origin) => {
        const { object } = new Replica(definition);
        const before = object.digest(NOW);
        const applied = apply(object, { op, words, origin }, NOW);
        assert.equal(object.locksHeld(), 0);
        if (op !== GRAPH_EDGE || words.length !== 8 || origin >= 8) assert.equal(applied, Applied.MALFORMED);
        if (applied === Applied.MALFORMED) {
          assert.equal(object.describe(NOW)['malformed'], 1);
          assert.equal(object.digest(NOW), before);
        }
      }),
    );
    const { object } = new Replica(definition);
    const put = (origin: number, ...words: number[]): Applied => apply(object, { op: GRAPH_EDGE, words, origin }, NOW);
    assert.equal(put(7, 1, 2, NOW, NOW + 5, 1, 0, 1, 0), Applied.CHANGED);
    assert.equal(put(8, 1, 2, NOW, NOW + 5, 1, 0, 1, 0), Applied.MALFORMED, 'a member there cannot be');
    assert.equal(put(0, 1, 2, 0, NOW + 5, 1, 0, 1, 0), Applied.MALFORMED, 'no generation');
    assert.equal(put(0, 1, 2, NOW + 6, NOW + 5, 1, 0, 1, 0), Applied.MALFORMED, 'generation after expiry');
    assert.equal(put(0, 1, 2, NOW, NOW + 10 ** 6, 1, 0, 1, 0), Applied.MALFORMED, 'expiry out of all reason');
    assert.equal(put(0, 1, 2, NOW, NOW + 5, 1, HIGH_WORD_MAX + 1, 1, 0), Applied.MALFORMED, 'more than 53 bits');
    assert.equal(put(0, 1, 2, NOW, NOW + 5, 1, 0, 1, -1), Applied.MALFORMED, 'a negative count');
    assert.equal(put(0, 3, 4, NOW - 50, NOW - 30, 1, 0, 1, 0), Applied.UNCHANGED, 'over already');
  });

  it('says what is wrong with a declaration', () => {
    assert.throws(() => graph({ edges: 0 }), /capacity 0/);
    assert.throws(() => graph({ edges: 10, members: 33 }), /members 33/);
    assert.throws(() => graph({ edges: 10, timeout: 0.5 }), /timeout 0.5/);
    assert.throws(
      () => new Replica(graph({ edges: 10, members: 2 }), 2, 3),
      /member 3 of a cluster declared to have 2/,
    );
  });
});

/**
 * Packets that X did not send never have X blocked, whoever sends them and whatever they are, at
 * two sites, while X works as honest hosts do; and, whatever X does, they never make the difference
 * between X blocked and not, except where they answer what X tried.
 */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { scaled } from '../../../support/scale.js';
import { frame } from '../../support/frames.js';
import { exchange, IdpsSite, INSIDE, OUTSIDE, unreachable } from '../../support/idps-site.js';

const X = '10.0.0.5';
/** Whom X has to do with, and who forges: apart, so that no forged packet answers what X tried. */
const SERVER = '198.51.100';
const FORGER = '203.0.113';

interface Step {
  readonly kind: 'visit' | 'ask' | 'ping' | 'serve' | 'reply' | 'dead' | 'probe' | 'forge' | 'exchange' | 'wait';
  readonly n: number;
  /** By which site a packet goes, and by which its answer comes. */
  readonly there: 0 | 1;
  readonly back: 0 | 1;
}

const HONEST = ['visit', 'ask', 'ping', 'serve', 'reply', 'exchange', 'wait'] as const;
/** What X does in half of the runs, so that it scans in earnest. */
const SCANNING = ['probe', 'probe', 'probe', 'dead', 'exchange', 'wait'] as const;
const steps = (kinds: readonly Step['kind'][], most: number): fc.Arbitrary<Step[]> =>
  fc.array(
    fc.record({
      kind: fc.constantFrom(...kinds),
      n: fc.nat(4000),
      there: fc.constantFrom(0 as const, 1 as const),
      back: fc.constantFrom(0 as const, 1 as const),
    }),
    { minLength: most / 2, maxLength: most },
  );

const kinds = (of: readonly Step['kind'][]): Step['kind'][] => [...of, 'dead', 'probe', 'forge', 'forge', 'forge'];

/**
 * Packets of others that have X as their destination, or speak of X, and answer nothing that X
 * tried.
 */
function forged(n: number): { port: number; frame: Uint8Array } {
  const from = `${FORGER}.${1 + (n % 250)}`;
  const [a, b] = [1 + ((n * 7919) % 65_535), 1 + ((n * 104_729) % 65_535)];
  const port = n % 2 === 0 ? OUTSIDE : INSIDE;
  const texts = [
    `tcp ${from}:${a} > ${X}:${b} R`,
    `tcp ${from}:${a} > ${X}:${b} RA seq 0`,
    `tcp ${from}:${a} > ${X}:${b} SA`,
    `tcp ${from}:${a} > ${X}:${b} S`,
    `tcp ${from}:${a} > ${X}:${b} F`,
    `tcp ${from}:${a} > ${X}:${b} A`,
    `tcp ${from}:${a} > ${X}:${b} FA`,
    `udp ${from}:${a} > ${X}:${b} len 8`,
    `icmp ${from} > ${X} echo 1`,
    `icmp ${from} > ${X} reply 1`,
    // Of connections that X has and that were answered.
    `tcp ${SERVER}.${1 + (n % 200)}:443 > ${X}:${20_000 + (n % 200)} R`,
    `tcp ${SERVER}.${1 + (n % 200)}:443 > ${X}:${20_000 + (n % 200)} RA seq 0`,
  ];
  const quotes = [
    `tcp ${X}:${a} > ${from}:${b} S`,
    `udp ${X}:60000 > ${from}:${1 + (n % 500)} len 8`,
    `icmp ${X} > ${from} echo 3`,
  ];
  const kind = n % (texts.length + quotes.length);
  if (kind < texts.length) return { port, frame: frame(texts[kind]) };
  return { port, frame: unreachable(from, frame(quotes[kind - texts.length])) };
}

class World {
  readonly sites = [0, 1].map((member) => new IdpsSite({ member, members: 2 }));
  private visits = 0;

  run(all: readonly Step[], withForged: boolean): this {
    for (const step of all) this.take(step, withForged);
    for (let n = 0; n < 80; n++) this.wait();
    return this;
  }

  get blocked(): boolean {
    return this.sites.some((site) => site.blocks().some(({ blocked }) => blocked === X));
  }

  private wait(): void {
    exchange(...this.sites);
    for (const site of this.sites) site.plane.idle(100);
    exchange(...this.sites);
  }

  private take({ kind, n, there, back }: Step, withForged: boolean): void {
    const [a, b] = [this.sites[there], this.sites[back]];
    if (kind === 'exchange') exchange(...this.sites);
    else if (kind === 'wait') this.wait();
    else if (kind === 'forge') {
      if (withForged) for (let k = 0; k < 8; k++) a.pass(forged(n * 8 + k));
    } else if (kind === 'visit') {
      const k = this.visits++ % 200;
      const [me, server] = [`${X}:${20_000 + k}`, `${SERVER}.${1 + k}:443`];
      a.fromInside(`tcp ${me} > ${server} S`);
      b.fromOutside(`tcp ${server} > ${me} SA`);
      // Who is reset while his SYN-ACK is not known yet is reset by what he tried: that is the
      // exception.
      exchange(...this.sites);
      a.fromInside(`tcp ${me} > ${server} A ack 1001`, `tcp ${me} > ${server} PA ack 1001 len 20`);
    } else if (kind === 'ask') {
      a.fromInside(`udp ${X}:${30_000 + n} > ${SERVER}.7:53 len 20`);
      b.fromOutside(`udp ${SERVER}.7:53 > ${X}:${30_000 + n} len 60`);
    } else if (kind === 'ping') {
      a.fromInside(`icmp ${X} > ${SERVER}.${1 + (n % 50)} echo 9`);
      b.fromOutside(`icmp ${SERVER}.${1 + (n % 50)} > ${X} reply 9`);
    } else if (kind === 'serve') {
      const client = `${SERVER}.${201 + (n % 40)}:${10_000 + n}`;
      a.fromOutside(`tcp ${client} > ${X}:50051 S`);
      b.fromInside(`tcp ${X}:50051 > ${client} SA`, `tcp ${X}:50051 > ${client} A`);
      a.fromOutside(`tcp ${client} > ${X}:50051 A ack 1001 len 5`, `tcp ${client} > ${X}:50051 R`);
    } else if (kind === 'reply') {
      // A UDP server, of a client at any port, who asks once.
      const client = `${SERVER}.${201 + (n % 40)}:${n % 3 === 0 ? 51_820 : 1 + n}`;
      a.fromOutside(`udp ${client} > ${X}:51820 len 40`);
      b.fromInside(`udp ${X}:51820 > ${client} len 40`);
    } else {
      const [me, to] = [`${X}:41000`, `${SERVER}.${kind === 'dead' ? 210 + (n % 40) : 250}:${1 + (n % 300)}`];
      a.fromInside(`tcp ${me} > ${to} S`);
      if (kind === 'probe') b.fromOutside(`tcp ${to} > ${me} RA seq 0`);
    }
  }
}

describe('IDPS: packets that X did not send', function () {
  this.timeout(240_000);

  it('never have X blocked, who works as honest hosts do, by whichever site', () => {
    fc.assert(
      fc.property(steps([...HONEST, 'forge', 'forge', 'forge'], 160), (all) => {
        assert.equal(new World().run(all, true).blocked, false);
      }),
      { numRuns: scaled(5, 12) },
    );
  });

  it('never have X blocked, who sends nothing', () => {
    for (const shift of [0, 1, 2, 3]) {
      const world = new World();
      const all = Array.from(
        { length: 250 },
        (_, n) => ({ kind: 'forge', n: n * 4 + shift, there: n % 2, back: 0 }) as Step,
      );
      assert.equal(world.run(all, true).blocked, false);
      for (const site of world.sites)
        assert.deepEqual({ ...site.known(X), answered: 0 }, { attempted: 0, answered: 0, refused: 0, probed: 0 });
    }
  });

  it('never make the difference, whatever X does, unless they answer what X tried', () => {
    let blocked = 0;
    fc.assert(
      fc.property(fc.oneof(steps(kinds(HONEST), 80), steps(kinds(SCANNING), 80)), (all) => {
        const without = new World().run(all, false).blocked;
        if (without) blocked++;
        if (new World().run(all, true).blocked) assert.ok(without, 'forged packets had X blocked');
      }),
      { numRuns: scaled(5, 12) },
    );
    assert.ok(blocked > 0, 'X never scanned in earnest');
  });
});

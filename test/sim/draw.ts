/** Draws a plan from a profile and a seed. Each kind of fault draws from its own stream. */

import { ENTRY_STEPS } from './entry.js';
import { DAMAGES, DEFECTS, FORGERIES, type ObjectKind, type Plan, type Step } from './plan.js';
import { type FaultKind, PROFILES, type Profile, SETTINGS } from './profiles.js';
import { Stream } from './random.js';

/** Longest duration of an `impostor` fault, ms. */
const IMPOSTOR_MS = 3500;
const HOUR_MS = 3_600_000;

const MULTICAST = {
  kind: 'multicast',
  group: '239.1.1.0',
  port: 7000,
  interface: '127.0.0.1',
  ttl: 1,
  loopback: true,
} as const;

/**
 * `members`: the number of members; default: drawn from the profile's range. Throws an error if the
 * profile does not exist.
 */
export function drawPlan(seed: number, name: string, members?: number): Plan {
  const profile = PROFILES[name];
  if (profile === undefined)
    throw new Error(`there is no profile ${name}; there are ${Object.keys(PROFILES).join(', ')}`);
  const draw = new Stream(seed, name, 'plan');
  const from = (range: readonly [number, number] | undefined): number =>
    range === undefined ? 0 : draw.between(range[0], range[1]);
  const count = members ?? draw.whole(...profile.members);
  const objects = Array.from({ length: draw.whole(...profile.objects) }, (): ObjectKind => draw.pick(profile.kinds));
  const safetyMs = Math.round(from(profile.safetyMs));
  const lowest = profile.delayMs[0] + from([0, profile.delayMs[1] - profile.delayMs[0]]);
  const transport = draw.chance(profile.multicast ?? 0) ? MULTICAST : ({ kind: 'unicast' } as const);
  const network = {
    delayMs: [lowest, from([lowest, profile.delayMs[1]])],
    jitterMs: from(profile.jitterMs),
    tail: from(profile.tail),
    tailMs: draw.between(20, 200),
    loss: from(profile.loss),
    duplicate: from(profile.duplicate),
  } as const;
  const clocks = Array.from({ length: count }, () => ({
    ppm: draw.between(-1, 1) * (profile.ppm ?? 0),
    skewMs: Math.round(draw.between(-1, 1) * (profile.skewMs ?? 0)),
  }));
  const firstSequence = draw.pick(profile.first ?? [1]);
  const drawer = new Drawer(seed, name, profile, count, objects, safetyMs);
  const steps = [...drawer.work(), ...drawer.faults()].sort((a, b) => a.at - b.at);
  const gone = steps.flatMap((step) =>
    step.do === 'leave' || (step.do === 'crash' && step.downMs === null) ? [step.member] : [],
  );
  const core = Array.from({ length: count }, (_, i) => i).filter((member) => !gone.includes(member));
  const settings = { ...SETTINGS, ...profile.settings, transport, bandwidth: Math.round(from(profile.bandwidth)) };
  return {
    seed,
    profile: name,
    members: count,
    objects,
    settings,
    ...(profile.sealed && { sealed: true }),
    ...(profile.transferMs && { transferMs: profile.transferMs }),
    ...(profile.loadMs && { loadMs: profile.loadMs }),
    firstSequence,
    network,
    clocks,
    safetyMs,
    core,
    steps,
  };
}

class Drawer {
  private readonly seed: number;
  private readonly name: string;
  private readonly profile: Profile;
  private readonly members: number;
  private readonly objects: readonly ObjectKind[];
  private readonly safetyMs: number;
  private readonly everyone: readonly number[];
  private gone = 0;

  constructor(
    seed: number,
    name: string,
    profile: Profile,
    members: number,
    objects: readonly ObjectKind[],
    safetyMs: number,
  ) {
    this.seed = seed;
    this.name = name;
    this.profile = profile;
    this.members = members;
    this.objects = objects;
    this.safetyMs = safetyMs;
    this.everyone = Array.from({ length: members }, (_, i) => i);
  }

  work(): Step[] {
    const { profile } = this;
    return this.everyone.flatMap((member) => {
      const draw = new Stream(this.seed, this.name, 'work', member);
      const batches = Math.ceil((draw.between(...profile.batches) * this.safetyMs) / 1000);
      return Array.from({ length: batches }, (): Step => {
        const at = draw.between(0, this.safetyMs);
        const object = draw.below(this.objects.length);
        return { at, do: 'work', member, object, count: draw.whole(...profile.operations) };
      });
    });
  }

  faults(): Step[] {
    const kinds = Object.entries(this.profile.faults ?? {}) as [FaultKind, readonly [number, number]][];
    return kinds.flatMap(([kind, range]) => {
      const draw = new Stream(this.seed, this.name, 'fault', kind);
      return Array.from({ length: draw.whole(...range) }, () => this.fault(kind, draw)).flat();
    });
  }

  /** Splits the members at random into two groups, each of at least one. */
  private halves(draw: Stream): [number[], number[]] {
    const order = draw.shuffled(this.everyone);
    const cut = draw.whole(1, this.members - 1);
    return [order.slice(0, cut), order.slice(cut)];
  }

  /** Start time of a fault that lasts `ms`, so that it ends within the safety phase if it can. */
  private beginOf(draw: Stream, ms: number): number {
    const calmMs = this.profile.calmMs ?? 0;
    return draw.between(calmMs, Math.max(calmMs, this.safetyMs - ms));
  }

  /** The point at which a thread dies, below `most`, if the profile uses `deathPoints`. */
  private points(draw: Stream, most: number): { points?: number } {
    return this.profile.deathPoints === undefined ? {} : { points: draw.below(most) };
  }

  /**
   * One member hears the JOINING of a second one late. By then, the second has started together
   * with a third, which has restarted since.
   */
  private lateStart(draw: Stream): Step[] {
    const [late, second, third] = draw.shuffled(this.everyone);
    const at = draw.between(1, 80);
    const ms = Math.round(draw.between(200, 700));
    const crashAt = at + draw.between(30, 150);
    return [
      { at, do: 'clog', ms, from: [second], to: draw.chance(0.7) ? [late] : [late, third] },
      { at: crashAt, do: 'crash', member: third, downMs: draw.between(0, this.profile.downMs ?? 500) },
    ];
  }

  private fault(kind: FaultKind, draw: Stream): Step[] {
    const at = draw.between(this.profile.calmMs ?? 0, this.safetyMs);
    const ms = Math.round(draw.between(...(this.profile.faultMs ?? [10, 100])));
    const member = draw.below(this.members);
    const object = draw.below(this.objects.length);
    const to = (member + 1 + draw.below(this.members - 1)) % this.members;
    switch (kind) {
      case 'cut':
      case 'clog': {
        const [from, others] = this.halves(draw);
        return [{ at, do: kind, ms, from, to: others }];
      }
      case 'partition': {
        const [one, other] = this.halves(draw);
        return [
          { at, do: 'cut', ms, from: one, to: other },
          { at, do: 'cut', ms, from: other, to: one },
        ];
      }
      case 'flap': {
        const [from, others] = this.halves(draw);
        const times = draw.whole(2, 12);
        return Array.from({ length: times }, (_, i): Step => {
          const begins = at + (i * ms) / times;
          return { at: begins, do: 'cut', ms: Math.round((draw.unit() * ms) / times), from, to: others };
        });
      }
      case 'swizzle': {
        const links = this.everyone.flatMap((from) =>
          this.everyone.filter((one) => one !== from).map((one) => [from, one]),
        );
        return draw
          .shuffled(links)
          .slice(0, draw.whole(1, Math.min(links.length, 12)))
          .map(([from, one], i, { length }): Step => {
            const begins = at + (i * ms) / (2 * length);
            const ends = at + ms / 2 + (draw.unit() * ms) / 2;
            return { at: begins, do: 'clog', ms: Math.round(ends - begins), from: [from], to: [one] };
          });
      }
      case 'worsen':
        return [
          {
            at,
            do: kind,
            ms,
            member,
            loss: draw.between(0, 0.6),
            delayMs: draw.chance(0.5) ? draw.between(0, 250) : 0,
          },
        ];
      case 'narrow':
        return [{ at, do: kind, ms, member, bytesPerMs: draw.between(2, 100) }];
      case 'slow':
        return [{ at, do: kind, ms, member, costMs: draw.between(0.1, 5) }];
      case 'pause':
      case 'busy':
        return [{ at, do: kind, ms, member }];
      case 'lock':
        return [{ at, do: kind, ms, member, object }];
      case 'save':
        return [{ at, do: kind, member }];
      case 'blackout':
        return this.everyone.map((one): Step => {
          return { at, do: 'crash', member: one, downMs: draw.between(0, this.profile.downMs ?? 500) };
        });
      case 'merge':
        return [{ at, do: kind, member, from: to }];
      case 'lost-last':
        return [{ at, do: kind, member, object }];
      case 'leave':
        if (this.gone >= this.members - 2) return [];
        this.gone++;
        return [{ at, do: kind, member }];
      case 'rejoin': {
        const dies = draw.pick(ENTRY_STEPS.filter((one) => one !== 'leaving'));
        const who = dies === 'listening' || draw.chance(0.6) ? 'itself' : 'donor';
        const downMs = draw.between(0, this.profile.downMs ?? 500);
        return [
          { at, do: 'crash-at', member, step: dies, who, downMs },
          { at: at + 0.001, do: 'crash', member, downMs: draw.between(0, this.profile.downMs ?? 500) },
        ];
      }
      case 'crash': {
        const never = draw.chance(this.profile.gone ?? 0) && this.gone < this.members - 2;
        if (never) this.gone++;
        return [{ at, do: kind, member, downMs: never ? null : draw.between(0, this.profile.downMs ?? 500) }];
      }
      case 'send-dies':
        return [
          { at, do: kind, member, after: draw.below(12), ...this.points(draw, 400), downMs: draw.between(0, 60) },
        ];
      case 'receive-dies':
        return [
          { at, do: kind, member, after: draw.below(40), ...this.points(draw, 120), downMs: draw.between(0, 60) },
        ];
      case 'rotate': {
        // Every member reaches a stage before any member reaches the next.
        const stages = 3 * draw.whole(1, 3);
        const gapMs = this.safetyMs / (stages + 1);
        return Array.from({ length: stages }, (_, i) =>
          this.everyone.map((one): Step => {
            return { at: gapMs * (i + 1 + draw.between(0, 0.9)), do: 'keys', member: one, stage: i + 1 };
          }),
        ).flat();
      }
      case 'clock':
        return [{ at, do: kind, member, stepMs: Math.round(draw.between(-400, 400)) }];
      case 'misclock': {
        const stepMs = Math.round(draw.between(0.1, 3) * HOUR_MS) * (draw.chance(0.7) ? 1 : -1);
        const down = (): number => draw.between(0, this.profile.downMs ?? 500);
        const starts = draw.whole(1, 2);
        return [
          { at, do: 'clock', member, stepMs },
          ...Array.from({ length: starts }, (_, i): Step => {
            return { at: at + 0.001 + (i * ms) / starts, do: 'crash', member, downMs: down() };
          }),
          { at: at + ms, do: 'clock', member, stepMs: -stepMs },
          { at: at + ms + 0.001, do: 'crash', member, downMs: down() },
        ];
      }
      case 'playback':
        return [{ at, do: kind, ms, member: to, to: member, count: draw.whole(3, 40), what: 'life' }];
      case 'evict': {
        // One half, or one member of it, is evicted by the other half. Sometimes the halves evict
        // each other.
        const [one, other] = this.halves(draw);
        const evicted = draw.chance(0.5) ? one : one.slice(0, 1);
        const cut: Step[] = draw.chance(0.7)
          ? [
              { at, do: 'cut', ms, from: one, to: other },
              { at, do: 'cut', ms, from: other, to: one },
            ]
          : [];
        const evict = (members: readonly number[], by: readonly number[]): Step => {
          const emptied = draw.chance(0.3) && { emptiedMs: draw.below(600) };
          return { at: at + draw.between(0, ms), do: 'evict', ms: draw.below(300), members, by, ...emptied };
        };
        return [...cut, evict(evicted, other), ...(draw.chance(0.3) ? [evict(other, one)] : [])];
      }
      case 'late-start':
        return this.lateStart(draw);
      case 'ambush': {
        // The restarted member hears recordings of the others before it hears the others
        // themselves.
        const downMs = draw.between(0, this.profile.downMs ?? 500);
        const others = this.everyone.filter((one) => one !== member);
        const heardMs = Math.round(downMs + draw.between(0.3, 1) * ms);
        return [
          { at, do: 'crash', member, downMs },
          { at, do: 'cut', ms: heardMs, from: others, to: [member] },
          { at: at + downMs, do: 'playback', ms, member, to: member, count: draw.whole(10, 60), what: 'start' },
        ];
      }
      case 'impostor': {
        // `member` loads the snapshot of a cluster in which an earlier incarnation of `to` has
        // ended. After that, it hears only recordings of that incarnation from `to`.
        const restMs = (): number => draw.between(400, 900);
        const begins = draw.between(0, Math.max(0, this.safetyMs - IMPOSTOR_MS));
        const again = begins + restMs();
        const cut = again + restMs();
        const cutMs = Math.round(draw.between(1050, 1500));
        return [
          { at: begins, do: 'crash', member: to, downMs: draw.between(0, 200) },
          { at: again, do: 'crash', member, downMs: draw.between(0, 200) },
          { at: cut, do: 'cut', ms: cutMs, from: [to], to: [member] },
          { at: cut, do: 'playback', ms: cutMs, member: to, to: member, count: draw.whole(20, 60), what: 'former' },
        ];
      }
      case 'debtor': {
        // A member that was cut off is still receiving its backlog when another member joins.
        const [origin, detached, joiner] = draw.shuffled(this.everyone);
        const cut = this.beginOf(draw, ms + 600);
        return [
          { at: cut, do: 'cut', ms, from: [origin], to: [detached] },
          { at: cut + ms, do: 'worsen', ms: 600, member: origin, loss: draw.between(0.1, 0.5), delayMs: 0 },
          { at: cut + ms - draw.between(0, 300), do: 'crash', member: joiner, downMs: draw.between(0, 100) },
        ];
      }
      case 'heirs': {
        // When the origin dies, one member that was cut off has its whole backlog, and another one
        // has nothing of its own.
        const [origin, heir, other] = draw.shuffled(this.everyone);
        const paidMs = Math.round(draw.between(500, 1500));
        const cut = this.beginOf(draw, ms + paidMs + 100);
        return [
          { at: cut, do: 'cut', ms, from: [origin], to: [heir] },
          { at: cut, do: 'cut', ms: ms + paidMs + 50, from: [origin], to: [other] },
          { at: cut + ms + paidMs, do: 'crash', member: origin, downMs: draw.between(0, 100) },
        ];
      }
      case 'damage':
        return [{ at, do: kind, ms, rate: draw.between(0.02, 0.5), how: draw.pick(DAMAGES) }];
      case 'forge':
        return [{ at, do: kind, member, to, what: draw.pick(FORGERIES) }];
      case 'defect':
        return [{ at, do: kind, member, object, what: draw.pick(DEFECTS) }];
      case 'flood':
        return [{ at, do: kind, member, to, count: draw.whole(40, 120) }];
      case 'replay':
        return [{ at, do: kind, to: member, count: draw.whole(1, 30) }];
    }
  }
}

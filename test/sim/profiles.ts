/** What kinds of lives there are, as data: a plan is drawn from one of these and a seed (draw.ts). */

import type { ReplicationSettings } from '../../workers/replication/settings.js';
import type { ObjectKind, StepKind } from './plan.js';

type Range = readonly [from: number, to: number];

/**
 * Faults are steps but `work`; `swizzle` clogs links one by one and frees them in another order, `flap` cuts again and again,
 * `rotate` changes the cluster's key, `rejoin` is a crash after which somebody dies again while it joins, `misclock` a start
 * under a clock that is hours off, and another one after the clock was put right; draw.ts says what the last five are.
 */
export type FaultKind =
  | Exclude<StepKind, 'work' | 'keys' | 'crash-at'>
  | 'rotate'
  | 'swizzle'
  | 'flap'
  | 'partition'
  | 'rejoin'
  | 'misclock'
  | 'late-start'
  | 'ambush'
  | 'impostor'
  | 'blackout'
  | 'debtor'
  | 'heirs';

export interface Profile {
  /** One line: what these lives are about. */
  readonly help: string;
  /** Costly lives: one in so many. */
  readonly oneIn?: number;
  readonly members: Range;
  /** How many objects, and of which kinds. */
  readonly objects: Range;
  readonly kinds: readonly ObjectKind[];
  readonly safetyMs: Range;
  /** Batches of work per member and second, and operations in one. */
  readonly batches: Range;
  readonly operations: Range;
  readonly delayMs: Range;
  readonly jitterMs: Range;
  /** Probabilities of each message. */
  readonly tail?: Range;
  readonly loss?: Range;
  readonly duplicate?: Range;
  /** How many faults of each kind a life has. */
  readonly faults?: Readonly<Partial<Record<FaultKind, Range>>>;
  /** Faults begin after this, ms: once members have come up. */
  readonly calmMs?: number;
  /** How long faults that last do, ms. */
  readonly faultMs?: Range;
  /** Longest time a crashed member is away, ms; and how likely it never comes back. */
  readonly downMs?: number;
  readonly gone?: number;
  /** Numbers of first records to choose from; only 1 where members die, for all take that for the first of a new life. */
  readonly first?: readonly number[];
  /** Milliseconds wall clocks are off, and parts per million clocks drift. */
  readonly skewMs?: number;
  readonly ppm?: number;
  readonly multicast?: number;
  /** Limit of each member, bit/s; default: none. */
  readonly bandwidth?: Range;
  readonly settings?: Partial<ReplicationSettings>;
  /** How long a snapshot travels, and how long no thread runs while one is loaded, in ms. */
  readonly transferMs?: Range;
  readonly loadMs?: Range;
  /** Messages are sealed. */
  readonly sealed?: boolean;
  /** Threads die at any of the calls that deaths.ts lists. */
  readonly deathPoints?: true;
}

const LEDGERS = ['notes', 'ordered'] as const;
const REAL = ['totals', 'increments', 'flows', 'nat', 'set', 'register', 'largest'] as const;

/** Quick timers: they are scaled to the lives' length. */
export const SETTINGS: Partial<ReplicationSettings> = {
  keepaliveMs: 200,
  silentMs: 1000,
  retransmitMsInitial: 100,
  retransmitMsMax: 1000,
  unitLogBytes: 1 << 18,
  reorderBytes: 1 << 16,
  foreignLogBytes: 1 << 20,
  joinWaitMs: 300,
};

/** Where members lose their state nobody may begin without it because it hears nobody: what it had is not sent again. */
const PATIENT_JOIN = { joinWaitMs: 60_000 } as const;

const COMMON = {
  members: [2, 5],
  objects: [1, 3],
  kinds: [...LEDGERS, ...REAL],
  safetyMs: [1000, 3000],
  batches: [5, 40],
  operations: [1, 12],
  delayMs: [0.2, 60],
  jitterMs: [0, 20],
  skewMs: 400,
  ppm: 100,
  multicast: 0.4,
} as const satisfies Partial<Profile>;

/** Numbers just below where something may turn over. */
const NEAR_WRAP = [2 ** 31 - 50, 2 ** 32 - 50, 2 ** 48 - 50, 2 ** 53 - 1_000_000] as const;

const LARGE: Profile = {
  ...COMMON,
  help: '16 to 40 members',
  oneIn: 79,
  members: [16, 40],
  objects: [1, 1],
  kinds: [...LEDGERS, 'increments'],
  safetyMs: [300, 800],
  batches: [1, 4],
  operations: [1, 4],
  loss: [0, 0.1],
  multicast: 1,
  faults: { cut: [0, 2], pause: [0, 2], 'send-dies': [0, 1] },
  faultMs: [20, 300],
};

export const PROFILES: Readonly<Record<string, Profile>> = {
  orderly: {
    ...COMMON,
    help: 'nothing goes wrong: what is sent twice or late here is a waste',
    loss: [0, 0],
  },
  lossy: {
    ...COMMON,
    help: 'loss up to one half, duplicates, reordering, heavy tails of delay',
    first: [1, 1, ...NEAR_WRAP],
    tail: [0, 0.1],
    loss: [0, 0.5],
    duplicate: [0, 0.2],
    faults: { worsen: [0, 3], 'lost-last': [0, 3] },
    faultMs: [50, 1500],
  },
  partition: {
    ...COMMON,
    help: 'symmetric, asymmetric and flapping partitions, clogged links freed in another order',
    members: [2, 6],
    loss: [0, 0.1],
    faults: { cut: [0, 4], partition: [0, 2], flap: [0, 2], swizzle: [0, 2], clog: [0, 3] },
    faultMs: [20, 1800],
  },
  clocks: {
    ...COMMON,
    help: 'round trips just above the retransmission timeout, drifting and stepping clocks, numbers near their limits',
    members: [2, 3],
    delayMs: [45, 55],
    jitterMs: [0, 30],
    first: NEAR_WRAP,
    faults: { clock: [1, 6], worsen: [1, 4] },
    faultMs: [50, 800],
    ppm: 1000,
  },
  narrow: {
    ...COMMON,
    help: 'bandwidth collapses, members are slow or stand still, buffers run out, objects are locked',
    loss: [0, 0.05],
    faults: { narrow: [0, 3], slow: [0, 2], pause: [0, 3], busy: [0, 3], lock: [0, 3] },
    faultMs: [20, 900],
    batches: [20, 80],
    operations: [1, 40],
    settings: { reorderBytes: 4096 },
  },
  threads: {
    ...COMMON,
    help: 'send and receive threads die, also within a message, and go on from the shared memory',
    kinds: [...LEDGERS, 'totals', 'flows', 'nat', 'set', 'register', 'largest'],
    loss: [0, 0.2],
    duplicate: [0, 0.1],
    faults: { 'send-dies': [1, 5], 'receive-dies': [1, 5], pause: [0, 1], defect: [0, 4] },
    faultMs: [20, 600],
  },
  deaths: {
    ...COMMON,
    help: 'threads die before and after any call that changes what their successors go on from',
    // A record that was taken and not released is taken again: only idempotent objects are not harmed.
    kinds: ['totals', 'flows', 'nat', 'set', 'register', 'largest'],
    loss: [0, 0.2],
    duplicate: [0, 0.1],
    faults: { 'send-dies': [2, 8], 'receive-dies': [2, 8], cut: [0, 1], crash: [0, 1] },
    faultMs: [20, 600],
    deathPoints: true,
    settings: PATIENT_JOIN,
  },
  crash: {
    ...COMMON,
    help: 'members crash, stay away or come back without their state under the same identifier',
    members: [2, 6],
    loss: [0, 0.1],
    tail: [0, 0.1],
    faults: { crash: [1, 4], cut: [0, 2], clog: [0, 2], replay: [0, 2], playback: [0, 2], 'send-dies': [0, 1] },
    faultMs: [20, 800],
    downMs: 1500,
    gone: 0.3,
    settings: PATIENT_JOIN,
  },
  join: {
    ...COMMON,
    help: 'members join with a snapshot under load, who joins or its donor dies at any step; members leave in order',
    members: [3, 6],
    loss: [0, 0.2],
    duplicate: [0, 0.1],
    safetyMs: [1500, 4000],
    faults: { crash: [0, 2], rejoin: [1, 3], leave: [0, 2], cut: [0, 2], pause: [0, 1], 'send-dies': [0, 1] },
    faultMs: [20, 500],
    downMs: 300,
    gone: 0.1,
    settings: PATIENT_JOIN,
  },
  start: {
    ...COMMON,
    help: 'the first second: members begin together, crash and begin again while messages are kept back and played back',
    members: [3, 4],
    safetyMs: [400, 1200],
    batches: [30, 80],
    loss: [0, 0.1],
    tail: [0, 0.2],
    faults: { 'late-start': [0, 2], ambush: [0, 2], clog: [0, 2], crash: [0, 2], playback: [0, 2] },
    faultMs: [50, 900],
    downMs: 300,
    settings: PATIENT_JOIN,
  },
  misclock: {
    ...COMMON,
    help: 'members start under clocks that are hours wrong and again when they are right; old datagrams are played back',
    kinds: [...LEDGERS, 'totals', 'increments', 'largest'],
    members: [2, 5],
    safetyMs: [2000, 6000],
    loss: [0, 0.1],
    faults: { misclock: [0, 2], impostor: [0, 1], crash: [0, 2], cut: [0, 2], playback: [1, 6] },
    faultMs: [200, 1800],
    downMs: 600,
    settings: PATIENT_JOIN,
  },
  'slow-join': {
    ...COMMON,
    oneIn: 37,
    help: 'members join under load with snapshots that take longer than the unit log lasts, and time to load',
    members: [2, 4],
    objects: [1, 1],
    kinds: LEDGERS,
    loss: [0, 0.05],
    safetyMs: [3000, 4000],
    batches: [40, 80],
    operations: [100, 250],
    faults: { crash: [1, 1] },
    calmMs: 500,
    downMs: 300,
    transferMs: [300, 1500],
    loadMs: [0, 300],
    settings: { ...PATIENT_JOIN, unitLogBytes: 64 << 10, reorderBytes: 1 << 20, detachMs: 300 },
  },
  'late-join': {
    ...COMMON,
    oneIn: 59,
    help: 'members join so slowly that what is retained for them is given up: their snapshot is refused, and they take another',
    members: [2, 2],
    objects: [1, 1],
    kinds: ['notes', 'register'],
    loss: [0, 0.05],
    safetyMs: [4000, 5000],
    batches: [80, 100],
    operations: [100, 150],
    faults: { crash: [1, 1] },
    calmMs: 500,
    downMs: 300,
    transferMs: [600, 3000],
    loadMs: [0, 300],
    settings: {
      ...{ ...PATIENT_JOIN, unitLogBytes: 64 << 10, reorderBytes: 1 << 20, detachMs: 300 },
      ...{ debtBytes: 80 << 10, debtBytesEach: 64 << 10 },
    },
  },
  hostile: {
    ...COMMON,
    help: 'damaged, truncated, forged and replayed messages',
    kinds: LEDGERS,
    loss: [0, 0.1],
    duplicate: [0, 0.1],
    faults: { damage: [2, 6], forge: [5, 40], replay: [2, 10], playback: [0, 3], cut: [0, 1] },
    faultMs: [100, 1500],
  },
  sealed: {
    ...COMMON,
    help: 'sealed messages: the key changes while members and threads die, and all else is damaged, forged and replayed',
    sealed: true,
    kinds: LEDGERS,
    loss: [0, 0.2],
    duplicate: [0, 0.2],
    faults: {
      rotate: [0, 1],
      'send-dies': [0, 4],
      'receive-dies': [0, 4],
      crash: [0, 2],
      clog: [0, 2],
      pause: [0, 1],
      damage: [0, 2],
      forge: [0, 10],
      flood: [0, 2],
      replay: [2, 10],
      playback: [0, 3],
    },
    faultMs: [20, 800],
    downMs: 800,
    gone: 0.1,
    settings: PATIENT_JOIN,
  },
  straggler: {
    ...COMMON,
    help: 'members silent or behind for longer than the unit log lasts: detached, owed, paid back, attached again',
    members: [2, 4],
    objects: [1, 2],
    loss: [0, 0.1],
    duplicate: [0, 0.1],
    safetyMs: [2000, 4000],
    batches: [30, 70],
    operations: [60, 160],
    faults: { cut: [1, 3], partition: [0, 1], pause: [0, 2], flap: [0, 1], worsen: [0, 1], slow: [0, 1] },
    calmMs: 700,
    faultMs: [700, 2500],
    settings: { ...PATIENT_JOIN, unitLogBytes: 64 << 10, detachMs: 300 },
  },
  owed: {
    ...COMMON,
    help: 'members crash and join while they, their donors or others are owed a backlog',
    members: [3, 4],
    objects: [1, 2],
    kinds: ['notes', 'ordered', 'totals', 'flows', 'set', 'largest'],
    loss: [0, 0.1],
    safetyMs: [2500, 4000],
    batches: [40, 80],
    operations: [60, 160],
    faults: { cut: [2, 4], pause: [0, 2], crash: [1, 3] },
    calmMs: 500,
    faultMs: [400, 1500],
    downMs: 300,
    settings: { ...PATIENT_JOIN, unitLogBytes: 64 << 10, silentMs: 400, keepaliveMs: 80, detachMs: 60 },
  },
  debtors: {
    ...COMMON,
    oneIn: 61,
    help: 'members join while another is being sent its backlog: that one is no donor',
    members: [3, 4],
    objects: [1, 1],
    kinds: LEDGERS,
    loss: [0, 0.05],
    safetyMs: [2500, 3500],
    batches: [40, 80],
    operations: [60, 160],
    faults: { debtor: [1, 2] },
    calmMs: 500,
    faultMs: [500, 1200],
    settings: { ...PATIENT_JOIN, unitLogBytes: 64 << 10, silentMs: 400, keepaliveMs: 80, detachMs: 60 },
  },
  heirs: {
    ...COMMON,
    oneIn: 67,
    help: 'the origin of backlogs dies when one member has the whole of its backlog, and another nothing of its own',
    members: [4, 5],
    objects: [1, 1],
    kinds: ['notes', 'set'],
    loss: [0, 0.02],
    safetyMs: [4000, 4500],
    batches: [60, 80],
    operations: [80, 160],
    delayMs: [0.2, 30],
    faults: { heirs: [1, 1] },
    calmMs: 500,
    faultMs: [900, 1400],
    settings: {
      ...{ ...PATIENT_JOIN, unitLogBytes: 64 << 10, foreignLogBytes: 8 << 20 },
      ...{ silentMs: 400, keepaliveMs: 80, detachMs: 60 },
    },
  },
  alone: {
    ...COMMON,
    help: 'members that are cut off start without state, and take that of the others once they hear them',
    kinds: ['totals', 'flows', 'nat', 'set', 'register', 'largest'],
    members: [2, 5],
    loss: [0, 0.1],
    safetyMs: [2000, 4000],
    faults: { crash: [1, 3], cut: [0, 2], partition: [1, 2] },
    faultMs: [400, 1800],
    downMs: 300,
    settings: { joinWaitMs: 200 },
  },
  restored: {
    ...COMMON,
    help: 'all members crash at once: the latest of their state files is restored, or all begin without state',
    members: [2, 5],
    loss: [0, 0.1],
    safetyMs: [2000, 4000],
    faults: { save: [0, 6], blackout: [1, 2], crash: [0, 1] },
    calmMs: 400,
    downMs: 300,
    settings: PATIENT_JOIN,
  },
  bankrupt: {
    ...COMMON,
    help: 'backlogs outgrow their memory or are lost with the send thread: members skip records and join snapshots',
    members: [2, 4],
    objects: [1, 2],
    kinds: ['totals', 'flows', 'nat', 'set', 'register', 'largest'],
    loss: [0, 0.1],
    safetyMs: [2000, 4000],
    batches: [60, 120],
    operations: [60, 120],
    faults: { cut: [2, 4], pause: [0, 1], 'send-dies': [0, 2] },
    calmMs: 500,
    faultMs: [700, 2000],
    settings: {
      ...{ ...PATIENT_JOIN, unitLogBytes: 64 << 10, silentMs: 400, keepaliveMs: 80, detachMs: 60 },
      ...{ debtBytes: 24 << 10, debtBytesEach: 512 },
    },
  },
  evictions: {
    ...COMMON,
    help: 'leases of living members lapse: one half, or each half, evicts members of the other, and hears of it sooner or later',
    members: [3, 6],
    kinds: ['notes', 'ordered', 'totals', 'flows', 'nat', 'set', 'register', 'largest'],
    loss: [0, 0.1],
    safetyMs: [2000, 4000],
    faults: { evict: [1, 2], crash: [0, 1], cut: [0, 1] },
    calmMs: 400,
    faultMs: [200, 1500],
    downMs: 300,
    settings: PATIENT_JOIN,
  },
  succession: {
    ...COMMON,
    help: 'members crash and start again at once, under loss, while all others are heard: a life goes on from the totals of the last',
    members: [3, 5],
    objects: [1, 2],
    kinds: ['totals', 'totals', 'notes', 'ordered'],
    safetyMs: [1500, 3000],
    batches: [30, 80],
    loss: [0.05, 0.4],
    faults: { crash: [2, 5] },
    calmMs: 400,
    downMs: 100,
    settings: PATIENT_JOIN,
  },
  relapse: {
    ...COMMON,
    help: 'members detached again and again, while the backlog of the last time is still being paid',
    oneIn: 47,
    members: [2, 3],
    objects: [1, 1],
    kinds: LEDGERS,
    loss: [0, 0.05],
    safetyMs: [1500, 2500],
    delayMs: [5, 60],
    batches: [60, 120],
    operations: [150, 400],
    faults: { cut: [3, 7], pause: [0, 1], worsen: [0, 2] },
    calmMs: 500,
    faultMs: [150, 600],
    settings: { ...PATIENT_JOIN, unitLogBytes: 64 << 10, silentMs: 300, keepaliveMs: 80, detachMs: 60 },
  },
  resync: {
    ...COMMON,
    oneIn: 43,
    help: 'members that are behind, detached and paid back join snapshots of others with their state meanwhile',
    members: [2, 4],
    objects: [1, 1],
    kinds: ['totals', 'flows', 'nat', 'set', 'register', 'largest'],
    loss: [0, 0.1],
    safetyMs: [2500, 4000],
    batches: [120, 220],
    operations: [30, 60],
    faults: { cut: [2, 4], merge: [3, 8], pause: [0, 1], worsen: [0, 1] },
    calmMs: 500,
    faultMs: [700, 2000],
    settings: { ...PATIENT_JOIN, unitLogBytes: 64 << 10, silentMs: 400, keepaliveMs: 80, detachMs: 60 },
  },
  metered: {
    ...COMMON,
    help: 'a limit on what each member sends, paths that become congested and narrow: records wait and coalesce',
    members: [2, 3],
    objects: [1, 2],
    loss: [0, 0.1],
    delayMs: [10, 60],
    bandwidth: [1e6, 20e6],
    safetyMs: [1000, 2000],
    batches: [60, 120],
    operations: [20, 120],
    faults: { narrow: [0, 3], worsen: [1, 3], cut: [0, 1], pause: [0, 1] },
    faultMs: [50, 900],
  },
  overload: {
    ...COMMON,
    oneIn: 41,
    help: 'more to send than the limit carries, for as long as there is work: what is lost is sent again all the same',
    members: [2, 3],
    objects: [1, 2],
    kinds: ['notes'],
    loss: [0.01, 0.1],
    delayMs: [5, 40],
    bandwidth: [1e6, 2e6],
    safetyMs: [2000, 3000],
    batches: [80, 120],
    operations: [150, 250],
    faults: { cut: [0, 1] },
    faultMs: [50, 900],
    settings: { unitLogBytes: 1 << 20 },
  },
  patient: {
    ...COMMON,
    help: 'minutes at the pace of real sites: the timers of production, little to do, cut off for up to two minutes',
    members: [2, 4],
    kinds: [...LEDGERS, 'totals', 'increments', 'register', 'largest'],
    safetyMs: [120_000, 900_000],
    batches: [0.02, 0.3],
    delayMs: [2, 150],
    loss: [0, 0.02],
    faults: { cut: [0, 2], partition: [0, 2], flap: [0, 1], pause: [0, 2], 'send-dies': [0, 1], clock: [0, 2] },
    faultMs: [1000, 120_000],
    settings: { keepaliveMs: 1000, silentMs: 5000, retransmitMsInitial: 1000, retransmitMsMax: 5000 },
  },
  hours: {
    ...COMMON,
    oneIn: 53,
    help: 'hours with little to do, and cut off for hours: stamps and clocks turn over meanwhile',
    members: [2, 3],
    objects: [1, 2],
    kinds: [...LEDGERS, 'totals', 'increments', 'register', 'largest'],
    safetyMs: [10_000_000, 30_000_000],
    batches: [0.0005, 0.005],
    delayMs: [2, 150],
    loss: [0, 0.02],
    faults: { cut: [1, 2], partition: [0, 2], pause: [0, 1], leave: [0, 1] },
    faultMs: [600_000, 9_000_000],
    settings: {
      ...PATIENT_JOIN,
      ...{ keepaliveMs: 10_000, silentMs: 50_000, retransmitMsInitial: 1000, retransmitMsMax: 10_000 },
    },
  },
  large: LARGE,
  crowd: {
    ...LARGE,
    help: '64 members, the most there can be',
    oneIn: 499,
    members: [64, 64],
    safetyMs: [200, 400],
    settings: { keepaliveMs: 1000, silentMs: 5000 },
  },
  mixed: {
    ...COMMON,
    help: 'everything at once',
    members: [2, 7],
    kinds: LEDGERS,
    tail: [0, 0.05],
    loss: [0, 0.3],
    duplicate: [0, 0.1],
    faults: {
      cut: [0, 2],
      partition: [0, 1],
      flap: [0, 1],
      swizzle: [0, 1],
      worsen: [0, 2],
      narrow: [0, 1],
      slow: [0, 1],
      pause: [0, 2],
      busy: [0, 1],
      lock: [0, 2],
      'send-dies': [0, 2],
      'receive-dies': [0, 2],
      crash: [0, 2],
      clock: [0, 2],
      damage: [0, 1],
      forge: [0, 5],
      replay: [0, 2],
      playback: [0, 2],
      'lost-last': [0, 1],
    },
    faultMs: [20, 1200],
    downMs: 1000,
    gone: 0.2,
    settings: PATIENT_JOIN,
  },
};

/** What a seed lives where no profile is asked for: all take turns, the costly ones now and then. */
export function profileOf(seed: number): string {
  const names = Object.keys(PROFILES);
  const rare = names.find((name) => seed % (PROFILES[name].oneIn ?? Number.POSITIVE_INFINITY) === 0);
  const common = names.filter((name) => PROFILES[name].oneIn === undefined);
  return rare ?? common[seed % common.length];
}

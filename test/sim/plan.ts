/**
 * A simulated run of a cluster as data: its members, network, work, and faults with their times. A
 * plan is drawn from a seed (draw.ts), reduced if it fails (shrink.ts), written to a file and
 * replayed. Running it (world.ts) draws only from the plan's seed, so the same plan always gives
 * the same run.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import type { ReplicationSettings } from '../../workers/replication/settings.js';
import type { EntryStep } from './entry.js';

export const OBJECT_KINDS = [
  'notes',
  'ordered',
  'totals',
  'increments',
  'flows',
  'nat',
  'set',
  'register',
  'largest',
] as const;
/**
 * `notes` and `ordered` are ledgers (ledger.ts) with delivery in any order and in order. The others
 * are objects of the state library.
 */
export type ObjectKind = (typeof OBJECT_KINDS)[number];

/**
 * Forged messages. Each is valid in form and checksum, but wrong in one fact that a member can
 * check.
 */
export const FORGERIES = [
  'cluster',
  'meaning',
  'view',
  'sender',
  'own',
  'incarnation',
  'ack_unsent',
  'malformed',
  'object',
] as const;
export type Forgery = (typeof FORGERIES)[number];

export const DAMAGES = ['flip', 'truncate', 'extend', 'splice'] as const;
export type Damage = (typeof DAMAGES)[number];

/**
 * Which recorded datagrams are played back: `life`: those of one incarnation of any member;
 * `start`: the first that the present incarnations of all members sent; `former`: those of ended
 * incarnations of `member`.
 */
export type Recorded = 'life' | 'start' | 'former';

interface At {
  /** When, in ms. */
  readonly at: number;
}
/** A step that lasts `ms`. */
interface During extends At {
  readonly ms: number;
}
interface OfMember {
  readonly member: number;
}

/**
 * Defects: a record of an object that does not exist; a record that the object refuses; an error in
 * `coalesce`.
 */
export const DEFECTS = ['object', 'record', 'coalesce'] as const;
export type Defect = (typeof DEFECTS)[number];

interface DyingThread {
  readonly after: number;
  /** If given, the thread dies after this many points (deaths.ts) instead. */
  readonly points?: number;
  readonly downMs: number;
}

export type Step =
  /** A worker does `count` operations on an object as one batch. */
  | (At & OfMember & { readonly do: 'work'; readonly object: number; readonly count: number })
  /**
   * The same with one operation, but the first message that carries units of the object is lost on
   * all links.
   */
  | (At & OfMember & { readonly do: 'lost-last'; readonly object: number })
  /** Nothing passes from any member in `from` to any in `to`. */
  | (During & { readonly do: 'cut'; readonly from: readonly number[]; readonly to: readonly number[] })
  /** Like a cut, but messages are kept and delivered, in order, at its end. */
  | (During & { readonly do: 'clog'; readonly from: readonly number[]; readonly to: readonly number[] })
  /** Another loss rate and an additional delay for everything that `member` sends. */
  | (During & OfMember & { readonly do: 'worsen'; readonly loss: number; readonly delayMs: number })
  /** Limits the member's uplink to `bytesPerMs`. */
  | (During & OfMember & { readonly do: 'narrow'; readonly bytesPerMs: number })
  /** Each message costs the receive thread `costMs`. */
  | (During & OfMember & { readonly do: 'slow'; readonly costMs: number })
  /** The process is paused. Its socket buffer fills. */
  | (During & OfMember & { readonly do: 'pause' })
  /** The transport has no buffers left. */
  | (During & OfMember & { readonly do: 'busy' })
  /** The object reports that what a record changes is locked. */
  | (During & OfMember & { readonly do: 'lock'; readonly object: number })
  /** The process dies with its memory. It restarts after `downMs`, or never (null). */
  | (At & OfMember & { readonly do: 'crash'; readonly downMs: number | null })
  /** It merges a snapshot of `from` with its state. */
  | (At & OfMember & { readonly do: 'merge'; readonly from: number })
  /**
   * The present incarnations of `members`, which run, are declared dead by the members in `by`, one
   * after the other within `ms`. If `emptiedMs` is given, etcd is restored empty that much later,
   * and then declares none of them dead.
   */
  | (During & {
      readonly do: 'evict';
      readonly members: readonly number[];
      readonly by: readonly number[];
      readonly emptiedMs?: number;
    })
  /**
   * The worker logs a record that no worker should, or the object's `coalesce` throws an error
   * once.
   */
  | (At & OfMember & { readonly do: 'defect'; readonly object: number; readonly what: Defect })
  /** It saves its state to a file, which a later start may restore. */
  | (At & OfMember & { readonly do: 'save' })
  /** It leaves in order. */
  | (At & OfMember & { readonly do: 'leave' })
  /** When `member` next reaches this step of joining or leaving, it or its donor dies. */
  | (At &
      OfMember & {
        readonly do: 'crash-at';
        readonly step: EntryStep;
        readonly who: 'itself' | 'donor';
        readonly downMs: number;
      })
  /** The send thread dies after `after` more messages and restarts on the same memory. */
  | (At & OfMember & DyingThread & { readonly do: 'send-dies' })
  /** The receive thread dies after `after` more records and restarts on the same memory. */
  | (At & OfMember & DyingThread & { readonly do: 'receive-dies' })
  /** Its key file reaches this stage (sealing.ts) and is read again. */
  | (At & OfMember & { readonly do: 'keys'; readonly stage: number })
  /** Its wall clock steps by `stepMs`. */
  | (At & OfMember & { readonly do: 'clock'; readonly stepMs: number })
  /** Messages on all links are damaged at this rate. */
  | (During & { readonly do: 'damage'; readonly rate: number; readonly how: Damage })
  /** An attacker sends `to` a message in the name of `member` that is wrong in one fact. */
  | (At & OfMember & { readonly do: 'forge'; readonly to: number; readonly what: Forgery })
  /**
   * An attacker sends `to` altered copies of a sealed datagram of `member`: one in another format,
   * the others each as if from another start.
   */
  | (At & OfMember & { readonly do: 'flood'; readonly to: number; readonly count: number })
  /**
   * An attacker sends `to` messages again that were delivered to it before, of any age, all at
   * once.
   */
  | (At & { readonly do: 'replay'; readonly to: number; readonly count: number })
  /** The same, spread over `ms`, with the recorded messages that `what` selects. */
  | (During &
      OfMember & { readonly do: 'playback'; readonly to: number; readonly count: number; readonly what: Recorded });

export type StepKind = Step['do'];

export interface NetworkPlan {
  /** Range of the one-way delay, ms. Each link draws its own. */
  readonly delayMs: readonly [number, number];
  /** Additional delay per message, up to this, ms. */
  readonly jitterMs: number;
  /** Probability of another delay from a heavy tail, and the tail's scale, ms. */
  readonly tail: number;
  readonly tailMs: number;
  readonly loss: number;
  readonly duplicate: number;
}

export interface Plan {
  readonly seed: number;
  readonly profile: string;
  readonly members: number;
  readonly objects: readonly ObjectKind[];
  readonly settings: Partial<ReplicationSettings>;
  /**
   * Time that a snapshot takes to transfer, and time without threads while it is loaded, ms.
   * Default: a range in transfer.ts, and none.
   */
  readonly transferMs?: readonly [number, number];
  readonly loadMs?: readonly [number, number];
  /** Whether messages are sealed. */
  readonly sealed?: boolean;
  /** The number of every object's first operation. */
  readonly firstSequence: number;
  readonly network: NetworkPlan;
  /**
   * Each member's clock: its rate error in parts per million, and the offset of its wall clock, ms.
   */
  readonly clocks: readonly { readonly ppm: number; readonly skewMs: number }[];
  readonly safetyMs: number;
  /** The members that are healed at the end and must converge. */
  readonly core: readonly number[];
  readonly steps: readonly Step[];
}

export function writePlan(path: string, plan: Plan): void {
  writeFileSync(path, `${JSON.stringify(plan, null, 1)}\n`);
}

/** Throws an error that says what is wrong with the file. */
export function readPlan(path: string): Plan {
  let plan: Plan;
  try {
    plan = JSON.parse(readFileSync(path, 'utf8')) as Plan;
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`);
  }
  const lacking = (['seed', 'members', 'objects', 'network', 'clocks', 'safetyMs', 'core', 'steps'] as const).filter(
    (name) => plan[name] === undefined,
  );
  if (lacking.length > 0) throw new Error(`${path}: not a plan: it has no ${lacking.join(', ')}`);
  return plan;
}

/** One line of a trace. */
export function describeStep(step: Step): string {
  const { at, do: what, ...more } = step;
  const details = Object.entries(more).map(([name, value]) => `${name} ${JSON.stringify(value)}`);
  return `${at.toFixed(1).padStart(9)} ms  ${what.padEnd(12)} ${details.join(', ')}`;
}

/**
 * A life of a cluster as data: who takes part, over what network, what they do, and what goes wrong
 * when. A plan is drawn from a seed (draw.ts), made smaller when it fails (shrink.ts), written to a
 * file and replayed. Running it (world.ts) draws only from the plan's seed, so the same plan always
 * gives the same life.
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
 * `notes` and `ordered` are ledgers (ledger.ts), in any order and in order; the others are the
 * state library's.
 */
export type ObjectKind = (typeof OBJECT_KINDS)[number];

/** Forgeries: valid in form and checksum, and each wrong in one fact that a member can check. */
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
 * What was recorded to be played back: of one life of any member; the first that the present lives
 * of all members sent; of lives of `member` that are over.
 */
export type Recorded = 'life' | 'start' | 'former';

interface At {
  /** When, in ms. */
  readonly at: number;
}
/** …and for how long. */
interface During extends At {
  readonly ms: number;
}
interface OfMember {
  readonly member: number;
}

/**
 * A record of an object that does not exist; one that the object refuses; an error in `coalesce`.
 */
export const DEFECTS = ['object', 'record', 'coalesce'] as const;
export type Defect = (typeof DEFECTS)[number];

interface DyingThread {
  readonly after: number;
  /** If given, it dies at one of the calls that deaths.ts lists instead, `points` of them later. */
  readonly points?: number;
  readonly downMs: number;
}

export type Step =
  /** A worker does `count` operations on an object, at once. */
  | (At & OfMember & { readonly do: 'work'; readonly object: number; readonly count: number })
  /** The same, and the first message that carries any of it is lost on all links. */
  | (At & OfMember & { readonly do: 'lost-last'; readonly object: number })
  /** Nothing gets from any of `from` to any of `to`. */
  | (During & { readonly do: 'cut'; readonly from: readonly number[]; readonly to: readonly number[] })
  /** As a cut, but messages are kept and come out, in order, when it ends. */
  | (During & { readonly do: 'clog'; readonly from: readonly number[]; readonly to: readonly number[] })
  /** Another loss rate, and another delay on top, for all that `member` sends. */
  | (During & OfMember & { readonly do: 'worsen'; readonly loss: number; readonly delayMs: number })
  /** Its uplink carries so many bytes a millisecond. */
  | (During & OfMember & { readonly do: 'narrow'; readonly bytesPerMs: number })
  /** Each message costs its receive thread so long. */
  | (During & OfMember & { readonly do: 'slow'; readonly costMs: number })
  /** The process stands still. Its socket buffer fills. */
  | (During & OfMember & { readonly do: 'pause' })
  /** The transport's memory is all under way. */
  | (During & OfMember & { readonly do: 'busy' })
  /** The object answers that what a record changes is locked. */
  | (During & OfMember & { readonly do: 'lock'; readonly object: number })
  /** The process dies with all its memory, and starts again after so long, or never. */
  | (At & OfMember & { readonly do: 'crash'; readonly downMs: number | null })
  /** It joins a snapshot of `from` with its state. */
  | (At & OfMember & { readonly do: 'merge'; readonly from: number })
  /**
   * The members' present lives, which live, are declared dead at the members in `by`: within `ms`,
   * at one after the other. `emptiedMs` later etcd is restored empty, and says so of nobody any
   * more.
   */
  | (During & {
      readonly do: 'evict';
      readonly members: readonly number[];
      readonly by: readonly number[];
      readonly emptiedMs?: number;
    })
  /**
   * Its worker logs what no worker should, or the object's code throws an error once when it
   * coalesces.
   */
  | (At & OfMember & { readonly do: 'defect'; readonly object: number; readonly what: Defect })
  /** It saves its state to a file, which its next starts may restore. */
  | (At & OfMember & { readonly do: 'save' })
  /** It leaves in order. */
  | (At & OfMember & { readonly do: 'leave' })
  /**
   * When `member` comes to this step of joining or leaving next, it, or who it takes its snapshot
   * of, dies.
   */
  | (At &
      OfMember & {
        readonly do: 'crash-at';
        readonly step: EntryStep;
        readonly who: 'itself' | 'donor';
        readonly downMs: number;
      })
  /**
   * The send thread dies at its next message but `after`, and is started again on the same memory.
   */
  | (At & OfMember & DyingThread & { readonly do: 'send-dies' })
  /** The receive thread dies at its next record but `after`, likewise. */
  | (At & OfMember & DyingThread & { readonly do: 'receive-dies' })
  /** Its key file comes to this stage (sealing.ts), and is read again. */
  | (At & OfMember & { readonly do: 'keys'; readonly stage: number })
  /** Its wall clock steps. */
  | (At & OfMember & { readonly do: 'clock'; readonly stepMs: number })
  /** Messages on all links are damaged at this rate. */
  | (During & { readonly do: 'damage'; readonly rate: number; readonly how: Damage })
  /** Somebody sends `to` a message in the name of `member` that is wrong in one fact. */
  | (At & OfMember & { readonly do: 'forge'; readonly to: number; readonly what: Forgery })
  /**
   * Somebody sends `to` sealed datagrams in the name of `member`: each as if from another start, or
   * in another format.
   */
  | (At & OfMember & { readonly do: 'flood'; readonly to: number; readonly count: number })
  /** Somebody sends `to` messages once more that it was sent before, of any age, all at once. */
  | (At & { readonly do: 'replay'; readonly to: number; readonly count: number })
  /** The same, spread over time, of those that `what` says. */
  | (During &
      OfMember & { readonly do: 'playback'; readonly to: number; readonly count: number; readonly what: Recorded });

export type StepKind = Step['do'];

export interface NetworkPlan {
  /** One way, in ms; each link has its own, drawn from this range. */
  readonly delayMs: readonly [number, number];
  /** On top, of each message: up to so much… */
  readonly jitterMs: number;
  /** …and with this probability one from a heavy tail of this scale. */
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
   * How long a snapshot travels, and how long no thread runs while one is loaded, in ms; default:
   * the world's.
   */
  readonly transferMs?: readonly [number, number];
  readonly loadMs?: readonly [number, number];
  /** Whether messages are sealed. */
  readonly sealed?: boolean;
  /** Number of every object's first record. */
  readonly firstSequence: number;
  readonly network: NetworkPlan;
  /** How fast each member's clock runs: parts per million off, and its wall clock's error in ms. */
  readonly clocks: readonly { readonly ppm: number; readonly skewMs: number }[];
  readonly safetyMs: number;
  /** The members that are healed in the end. */
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

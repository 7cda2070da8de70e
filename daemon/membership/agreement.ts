/**
 * Checks that the other members have the same values of the options that must be the same at all
 * sites. It asks each member over the snapshot server's port, once per incarnation, and again while
 * something differs. It also asks members whose messages are refused or never arrive. So it can
 * name what separates two members, with both values.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { AgreedOption } from '../../conf/agreed.js';
import type { Parameters } from '../../shm/arena.js';
import type { MemberTable } from '../../shm/members.js';
import type { StateObject } from '../../shm/objects/core/object.js';
import { monotonicMs } from '../../workers/base/monotonic.js';
import type { Instance } from '../../workers/engine/instance.js';
import type { PeerStatus } from '../../workers/replication/membership/peers.js';
import { type Agreed, type Difference, differences } from '../../workers/snapshot/agreed.js';
import { askAgreed } from '../../workers/snapshot/client.js';
import type { Circle } from '../../workers/snapshot/handshake.js';
import type { Log } from '../base/log.js';

interface AgreementOptions {
  readonly instance: Instance;
  readonly members: MemberTable;
  readonly circle: Circle;
  readonly options: readonly AgreedOption[];
  readonly release: string;
  readonly log: Log;
  /** The objects that the main thread has open now. */
  readonly objects: () => readonly StateObject[];
}

const ASK_MS_MAX = 1_000;
const SETTLE_MS_MAX = 3_000;
const SETTLE_LOOK_MS = 20;
/** First delay after a member did not answer. It doubles each time. */
const BACK_OFF_MS_MIN = 500;
/** Upper limit of the delay. */
const BACK_OFF_MS_MAX = 30_000;
/** A member that differs or is not heard is asked again after this time. */
const AGAIN_MS = 5_000;
/** Number of differences that one line names. */
const NAMED_MAX = 6;
/** Prefix of state objects among the options. They are shown only if no option differs. */
const STATE = 'state ';

interface Answer {
  name: string;
  /** The member's incarnation when it was asked; 0: it was not heard. */
  incarnation: number;
  askAt: number;
  backOffMs: number;
  /** Whether it was heard when it was last asked. */
  wasHeard: boolean;
  /** The differences, in words; `null`: none, or no answer yet. */
  problem: string | null;
  /** The shapes of its objects; empty: not known. */
  shapes: readonly Parameters[];
  /** The release it runs; `null`: no answer yet. */
  release: string | null;
}

export class AgreementWatch {
  /** What this instance answers to others. */
  readonly own: Agreed;
  private readonly options: AgreementOptions;
  private readonly reasons: ReadonlyMap<string, string>;
  private readonly answers = new Map<number, Answer>();
  /** Ids of members that have asked this instance. */
  private readonly informed = new Set<number>();
  private readonly ending = new AbortController();
  private asking: Promise<void> | null = null;
  /** What the shapes at other members restrict here, one text per object. */
  private restrictions: readonly string[] = [];
  private heeded = '';
  private heedingObjects: readonly StateObject[] = [];

  constructor(options: AgreementOptions) {
    this.options = options;
    const { declaration } = options.instance;
    this.reasons = new Map(options.options.map(({ name, reason }) => [name, reason]));
    this.own = {
      release: options.release,
      options: new Map([
        ...options.options.map(({ name, value }) => [name, value] as const),
        ...declaration.objects.map(
          ({ name, kind, parameters }) => [`${STATE}${name}`, `${kind} ${JSON.stringify(parameters)}`] as const,
        ),
      ]),
      shapes: declaration.objects.map(({ shape = {} }) => shape),
    };
  }

  /** What the shapes of objects at other members restrict here, for people. */
  get restricted(): readonly string[] {
    return this.restrictions;
  }

  /** The differences at each member that differs, except the members in `but`. */
  problemsBeside(but: readonly { readonly id: number }[]): string[] {
    return [...this.answers].flatMap(([id, { problem }]) =>
      problem === null || but.some((member) => member.id === id) ? [] : [problem],
    );
  }

  /** The differences at the member with this id. */
  problemOf(id: number): string | null {
    return this.answers.get(id)?.problem ?? null;
  }

  /** The release that the member with this id runs; `null`: not yet known. */
  releaseOf(id: number): string | null {
    return this.answers.get(id)?.release ?? null;
  }

  /** Members with another release than this instance, and that release. */
  otherReleases(): string[] {
    return [...this.answers.values()].flatMap(({ name, release }) =>
      release === null || release === this.options.release ? [] : [`${name}: ${release}`],
    );
  }

  /** Called several times a second; `now` in ms of `monotonicMs`. Asks one member at a time. */
  look(peers: readonly PeerStatus[], now: number): void {
    for (const id of this.answers.keys()) if (!peers.some((peer) => peer.id === id)) this.answers.delete(id);
    this.heed(peers);
    if (this.asking !== null || this.ending.signal.aborted) return;
    const peer = peers.find((candidate) => this.isDue(candidate, now));
    if (peer === undefined) return;
    this.asking = this.ask(peer, now).finally(() => {
      this.asking = null;
    });
  }

  /** Notes that a member has asked this instance. */
  noteInformed(id: number): void {
    this.informed.add(id);
  }

  /**
   * Waits, before packets come, until each member that is heard has answered and has asked, or
   * until the time limit. `peers` returns their present status.
   */
  async settle(peers: () => readonly PeerStatus[]): Promise<void> {
    const end = monotonicMs() + SETTLE_MS_MAX;
    const isOpen = ({ id, state }: PeerStatus): boolean =>
      state === 'heard' && ((this.answers.get(id)?.incarnation ?? 0) === 0 || !this.informed.has(id));
    for (let now = monotonicMs(); now < end && !this.ending.signal.aborted; now = monotonicMs()) {
      this.look(peers(), now);
      if (!peers().some(isOpen)) break;
      await sleep(SETTLE_LOOK_MS);
    }
    // Applies the shapes again even if none changed, because a snapshot may have been loaded since.
    this.heeded = '';
    this.heed(peers());
  }

  /** Aborts the request in progress. */
  async close(): Promise<void> {
    this.ending.abort();
    await this.asking;
  }

  /**
   * Passes the shapes at other members to the objects if they have changed. Uses the members of the
   * list that have answered.
   */
  private heed(peers: readonly PeerStatus[]): void {
    const { objects, instance, log } = this.options;
    const { declaration } = instance;
    // The shapes of an absent member count, too: it comes back with the same lists unless its
    // operator changed them.
    const shapes = peers.flatMap(({ id }) => {
      const known = this.answers.get(id)?.shapes ?? [];
      return known.length === declaration.objects.length ? [known] : [];
    });
    const heeded = JSON.stringify(shapes);
    const open = objects();
    if (heeded === this.heeded && open === this.heedingObjects) return;
    this.heeded = heeded;
    this.heedingObjects = open;
    const restrictions: string[] = [];
    for (const object of open) {
      const { name } = declaration.objects[object.id];
      try {
        const known = shapes.map((of) => of[object.id]).filter((shape) => Object.keys(shape).length > 0);
        const text = object.heedShapes?.(known) ?? null;
        if (text !== null) restrictions.push(`${name}: ${text}`);
      } catch (error) {
        log.warn(`${name}: the shape that a member says is wrong: ${(error as Error).message}`);
      }
    }
    for (const text of restrictions) if (!this.restrictions.includes(text)) log.warn(text);
    for (const text of this.restrictions) if (!restrictions.includes(text)) log.info(`over: ${text}`);
    this.restrictions = restrictions;
  }

  private isDue({ id, incarnation, state }: PeerStatus, now: number): boolean {
    const answer = this.answers.get(id);
    // A member that is not heard any more may have restarted with options that make us refuse its
    // messages.
    if (answer === undefined || (state === 'heard') !== answer.wasHeard) return true;
    return now >= answer.askAt || (incarnation !== answer.incarnation && answer.backOffMs === 0);
  }

  private async ask({ id, index, name, incarnation, state }: PeerStatus, now: number): Promise<void> {
    const { instance, members, circle } = this.options;
    const answer = this.answers.get(id) ?? {
      name,
      incarnation: 0,
      askAt: 0,
      backOffMs: 0,
      wasHeard: false,
      problem: null,
      release: null,
      shapes: [],
    };
    this.answers.set(id, answer);
    answer.wasHeard = state === 'heard';
    try {
      members.refresh();
      const theirs = await askAgreed({
        ...{ client: instance.plan.replication.self, server: id, circle, signal: this.ending.signal },
        ...{ address: members.address(index), port: members.port(index) },
        ...{ connectMs: ASK_MS_MAX, idleMs: ASK_MS_MAX },
      });
      this.take(answer, name, theirs);
      answer.shapes = theirs.shapes;
      answer.incarnation = incarnation;
      answer.backOffMs = 0;
      const isSettled = answer.problem === null && state === 'heard';
      answer.askAt = isSettled ? Number.POSITIVE_INFINITY : now + AGAIN_MS;
    } catch {
      // The member does not run, cannot be reached, or has another key. `refusals.ts` reports what
      // is known of that.
      answer.backOffMs = Math.min(BACK_OFF_MS_MAX, Math.max(BACK_OFF_MS_MIN, 2 * answer.backOffMs));
      answer.askAt = now + answer.backOffMs;
    }
  }

  private take(answer: Answer, name: string, theirs: Agreed): void {
    const { log, release } = this.options;
    if (theirs.release !== answer.release && theirs.release !== release)
      log.info(`member ${name} runs ${theirs.release}, and this instance ${release}`);
    answer.release = theirs.release;
    const found = differences(this.own, theirs);
    const options = found.filter(({ option }) => !option.startsWith(STATE));
    const named = options.length > 0 ? options : found;
    const problem = named.length === 0 ? null : this.describe(name, theirs.release, named);
    if (problem !== answer.problem && problem !== null) log.warn(problem);
    if (problem === null && answer.problem !== null)
      log.info(`member ${name} has the same values of all options that must be the same at all sites`);
    answer.problem = problem;
  }

  private describe(name: string, release: string, found: readonly Difference[]): string {
    const texts = found.slice(0, NAMED_MAX).map(({ option, ours, theirs }) => {
      const reason = this.reasons.get(option) ?? '';
      const values = `${ours ?? 'nothing'} here, ${theirs ?? 'nothing'} there`;
      return `${option}: ${values}${reason === '' ? '' : ` (${reason})`}`;
    });
    if (found.length > NAMED_MAX) texts.push(`and ${found.length - NAMED_MAX} more`);
    const releases =
      release === this.options.release ? '' : `, and runs release ${release} (here ${this.options.release})`;
    return `member ${name} differs in what must be the same at all sites${releases}: ${texts.join('; ')}`;
  }
}

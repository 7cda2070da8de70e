/**
 * `constellation reload`: reads the configuration again while the instance runs.
 *
 * The whole file is checked first, with rules and the key file. If anything is wrong, nothing
 * changes. Then the values of hot options are applied, and the options that need a restart are
 * named. Each reload compares the file with what runs, so an option that needs a restart is named
 * each time.
 */

import { isDeepStrictEqual } from 'node:util';
import { changesBetween, nameOfChange, type OptionChange, shownValue, withValue } from '../conf/changes.js';
import type { Config, MemberConfig } from '../conf/config.js';
import { expandAddresses } from '../options/addresses.js';
import { changeOf, type Options } from '../options/option.js';
import type { RulesText } from '../options/rules.js';
import type { StateObject } from '../shm/objects/core/object.js';
import type { Instance } from '../workers/engine/instance.js';
import { applyLive, type LiveValues, type LiveWriter } from '../workers/engine/live-values.js';
import { type Declaration, stateOf } from '../workers/plane/chain.js';
import type { Log } from './base/log.js';
import { loadConfig } from './config/config.js';
import { readKeyFileInTime } from './config/key-file.js';
import { planReplication } from './config/plan.js';
import type { InterfaceWatch } from './host/interface-watch.js';
import type { Hooks } from './lifecycle/hooks.js';
import type { ChangedOption, PendingOption, Reloaded } from './views/source.js';
import type { RecordLog } from './watch/record-log.js';

type Keys = Awaited<ReturnType<typeof readKeyFileInTime>>;

/** The part of the daemon that a reload changes. */
interface Reloadable {
  /** The values in use. */
  config: Config;
  readonly instance: Instance;
  readonly objects: readonly StateObject[];
  /**
   * The chain with which the ports were opened. It determines which packets the XDP program takes.
   */
  readonly chain: Declaration;
  readonly live: LiveWriter;
  readonly log: Log;
  readonly hooks: Hooks;
  readonly records: RecordLog;
  readonly interfaces: InterfaceWatch | null;
  /** These change the member list. Each rejects with the cause if the change cannot be made. */
  takeMember(member: MemberConfig): Promise<unknown>;
  dropMember(name: string): Promise<unknown>;
  sealWith(keys: Keys): unknown;
  /**
   * Reads all rules again, some from another source. If any are wrong, it rejects with all errors
   * and changes nothing.
   */
  replaceRules(sources: ReadonlyMap<string, RulesText>): Promise<unknown>;
}

/** How an operator accepts the loss of entries that no longer fit. */
const CONFIRM = 'after the restart the instance waits, if there are such, until constellation join lossy confirms it';

/** A hot option that could not be applied now, and why. */
interface Refused {
  readonly change: OptionChange;
  readonly reason: string;
}

export class Reloader {
  private readonly daemon: Reloadable;
  private last: Promise<unknown> = Promise.resolve();

  constructor(daemon: Reloadable) {
    this.daemon = daemon;
  }

  /** `isCheck`: only returns what a reload would do. Concurrent calls run one after the other. */
  reload(isCheck: boolean): Promise<Reloaded> {
    const again = (): Promise<Reloaded> => this.reloadNow(isCheck);
    const done = this.last.then(again, again);
    this.last = done;
    return done;
  }

  private async reloadNow(isCheck: boolean): Promise<Reloaded> {
    const { daemon } = this;
    const { config: next, errors } = await loadConfig(daemon.config.file);
    if (next === undefined)
      throw new Error(`the configuration is wrong, and nothing was changed: ${errors.join('; ')}`);
    const { links } = daemon.instance.declaration;
    const optionsAt = (i: number): Options => links[i].middlebox.options;
    const { changes, unchanged } = changesBetween(daemon.config.written, next.written, optionsAt);
    const refused: Refused[] = [];
    const hot = this.applicable(changes, next, refused);
    if (!isCheck) await this.apply(hot, next, refused);
    const isApplied = (change: OptionChange) =>
      hot.includes(change) && !refused.some((entry) => entry.change === change);
    const pending = changes.filter((change) => !isApplied(change));
    return {
      applied: changes.filter(isApplied).map(shown),
      restart: pending.map((change): PendingOption => {
        const { kind, reason = '', loses } = changeOf(change.option);
        const lost = loses !== undefined && isReduced(change) ? `${loses} are lost: ${CONFIRM}` : reason;
        const why = refused.find((entry) => entry.change === change)?.reason ?? lost;
        return { ...shown(change), change: kind === 'all-sites' ? kind : 'rolling', reason: why };
      }),
      unchanged,
    };
  }

  /** The changes that can be applied now. */
  private applicable(changes: readonly OptionChange[], next: Config, refused: Refused[]): OptionChange[] {
    const hot = changes.filter(({ option }) => changeOf(option).kind === 'hot');
    const whole = hot.filter((change) => {
      const reason = this.obstacle(change);
      if (reason !== null) refused.push({ change, reason });
      return reason === null;
    });
    // The options of one middlebox are applied together. Together they must be valid beside the
    // options that wait for a restart.
    return whole.filter((change) => {
      if (change.path[0] !== 'middleboxes') return true;
      const reason = this.contradiction(Number(change.path[1]), whole, next);
      if (reason !== null) refused.push({ change, reason });
      return reason === null;
    });
  }

  private obstacle({ path, from, to }: OptionChange): string | null {
    if (path.join('.') === 'cluster.key_file' && (from === undefined) !== (to === undefined))
      return 'whether messages are sealed is decided at the start, at all sites together';
    return null;
  }

  /** Why the hot options of a middlebox cannot be applied; `null`: they can. */
  private contradiction(index: number, changes: readonly OptionChange[], next: Config): string | null {
    const { plan, declaration, slots } = this.daemon.instance;
    const { middlebox, options, objectIds } = declaration.links[index];
    try {
      const values = { ...options, ...hotValues(index, changes, next) };
      for (const [key, definition] of Object.entries(stateOf(middlebox, values, plan.shared))) {
        const id = objectIds[key];
        const opened = declaration.objects[id];
        const { kind, parameters, bytes } = definition;
        if (opened?.kind !== kind || opened.bytes !== bytes || !isDeepStrictEqual(opened.parameters, parameters))
          return 'it changes the layout of state';
        const local = declaration.definitions[id].localBytes?.(slots.workers) ?? 0;
        if ((definition.localBytes?.(slots.workers) ?? 0) > local) return 'it needs memory that is made at the start';
      }
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  }

  private async apply(hot: readonly OptionChange[], next: Config, refused: Refused[]): Promise<void> {
    const { daemon } = this;
    const keyFile = hot.some(({ path }) => path[1] === 'key_file')
      ? next.cluster.keyFile
      : daemon.config.cluster.keyFile;
    // The steps that can fail come first, so that a failure changes nothing.
    const keys = keyFile === null ? null : await keysOf(keyFile);
    await daemon.replaceRules(rulesOf(hot, next));
    if (keys !== null) daemon.sealWith(keys);
    const values = this.liveValues(hot, next);
    await daemon.live.publish(values);
    applyLive({ ...daemon.instance, objects: daemon.objects }, values);
    for (const [i, { options }] of daemon.chain.links.entries()) Object.assign(options, values.middleboxes[i]);
    daemon.interfaces?.updateFilters();
    daemon.hooks.configure(next.hooks);
    daemon.log.level = next.log.level;
    await daemon.records.configure(next.records.file, next.records.keep);
    let { written } = daemon.config;
    for (const change of hot) if (change.path[1] !== 'members') written = withValue(written, change.path, change.to);
    daemon.config = {
      ...daemon.config,
      written,
      hooks: next.hooks,
      log: next.log,
      records: next.records,
      replication: { ...daemon.config.replication, ...written.replication },
      early_replies: { ...daemon.config.early_replies, ...written.early_replies },
      cluster: { ...daemon.config.cluster, keyFile },
      middleboxes: daemon.config.middleboxes.map((entry, i) => ({
        ...entry,
        options: { ...entry.options, ...(values.middleboxes[i] as typeof entry.options) },
      })),
    };
    const members = hot.find(({ path }) => path.join('.') === 'cluster.members');
    if (members !== undefined) await this.changeMembers(members, next, refused);
  }

  private liveValues(hot: readonly OptionChange[], next: Config): LiveValues {
    const { plan, declaration } = this.daemon.instance;
    const { ackDelayMs, keepaliveMs, retransmitMsMin, bandwidth } = planReplication(next);
    return {
      // All hot options, so that a restarted thread also has the values of earlier reloads.
      middleboxes: declaration.links.map(({ middlebox, options }, i) => ({
        ...Object.fromEntries(Object.entries(options).filter(([name]) => isLive(middlebox.options, name))),
        ...hotValues(i, hot, next),
      })),
      replication: { ackDelayMs, keepaliveMs, retransmitMsMin, bandwidth },
      // Whether packets wait at all is decided at the start.
      earlyMsMax: plan.earlyMsMax === 0 ? 0 : next.early_replies.wait_ms_max,
    };
  }

  /** Makes all changes of members that can be made, and reports the others. */
  private async changeMembers(change: OptionChange, next: Config, refused: Refused[]): Promise<void> {
    const { daemon } = this;
    const reasons: string[] = [];
    let members = [...daemon.config.cluster.members];
    const self = daemon.config.cluster.self.name;
    const wanted = next.cluster.members;
    const isWanted = (member: MemberConfig) => wanted.some((other) => isDeepStrictEqual(member, other));
    for (const member of members.filter((known) => !isWanted(known))) {
      if (member.name === self) {
        reasons.push(`${self} is this instance: its own entry changes with a restart`);
        continue;
      }
      try {
        await daemon.dropMember(member.name);
        members = members.filter((known) => known !== member);
      } catch (error) {
        reasons.push((error as Error).message);
      }
    }
    for (const member of wanted) {
      if (members.some(({ name }) => name === member.name)) continue;
      try {
        await daemon.takeMember(member);
        members.push(member);
      } catch (error) {
        reasons.push((error as Error).message);
      }
    }
    const isWhole = reasons.length === 0;
    if (!isWhole) refused.push({ change, reason: reasons.join('; ') });
    const list = isWhole ? change.to : members.map(({ name, id, address, slot }) => ({ name, id, address, slot }));
    daemon.config = {
      ...daemon.config,
      written: withValue(daemon.config.written, ['cluster', 'members'], list),
      cluster: { ...daemon.config.cluster, members },
    };
  }
}

async function keysOf(file: string): Promise<Keys> {
  try {
    return await readKeyFileInTime(file);
  } catch (error) {
    throw new Error(`the keys stay as they are: ${(error as Error).message}; nothing was changed`, { cause: error });
  }
}

/**
 * Whether threads take an option's values while they run. Rules are excluded, because they reach
 * the threads through their own board.
 */
function isLive(options: Options, name: string): boolean {
  const option = options[name];
  return option !== undefined && option.kind !== 'rules' && changeOf(option).kind === 'hot';
}

/** The new values of a middlebox's hot options, resolved. */
function hotValues(index: number, changes: readonly OptionChange[], next: Config): Record<string, unknown> {
  const changed = changes.filter(
    ({ path, option }) => path[0] === 'middleboxes' && path[1] === index && option.kind !== 'rules',
  );
  return Object.fromEntries(changed.map(({ path }) => [path[3], next.middleboxes[index].options[String(path[3])]]));
}

/** Rules whose source has changed, by `middlebox.option`. */
function rulesOf(changes: readonly OptionChange[], next: Config): Map<string, RulesText> {
  const changed = changes.filter(({ path, option }) => path[0] === 'middleboxes' && option.kind === 'rules');
  return new Map(
    changed.map(({ path }) => {
      const { name, as, options } = next.middleboxes[Number(path[1])];
      return [`${as ?? name}.${String(path[3])}`, options[String(path[3])] as RulesText];
    }),
  );
}

function shown(change: OptionChange): ChangedOption {
  const { option, from, to } = change;
  return { option: nameOfChange(change), from: shownValue(option, from), to: shownValue(option, to) };
}

/** Whether a value is lower than before, or a list lacks a former entry. */
function isReduced({ from, to }: OptionChange): boolean {
  if (typeof from === 'number' && typeof to === 'number') return to < from;
  if (!Array.isArray(from) || !Array.isArray(to)) return false;
  const [before, after] = [from, to].map((list) => new Set(expandAddresses(list as string[])));
  return [...before].some((address) => !after.has(address));
}

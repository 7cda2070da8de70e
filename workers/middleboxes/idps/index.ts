/**
 * IDPS: detects port scans, port floods and SYN floods, raises alerts, and blocks them at all
 * sites.
 *
 * It is transparent: packets that it does not drop pass unchanged. It must see both directions of a
 * connection with the same addresses, if need be at several sites. So it cannot be in one chain
 * with a middlebox that rewrites addresses. What one site sees counts at all sites, and a block at
 * one site holds at all.
 *
 * | found            | by                                               | then                                  |
 * | ---------------- | ------------------------------------------------ | ------------------------------------- |
 * | scans            | contacts that fail, distinct ports: idps/scan.ts | the source is blocked                 |
 * | floods of a port | volume to a destination port: idps/port-flood.ts | the port is blocked                   |
 * | SYN floods       | SYNs without connections: idps/syn-flood.ts      | first SYNs to the service are dropped |
 *
 * idps/evidence.ts says what each packet is evidence of. docs/idps.md says what is found and what
 * is not, with figures.
 */

import {
  allSites,
  counterVector,
  defineMiddlebox,
  HOT,
  keyedHyperLogLogs,
  NONE,
  option,
  Protocol,
  rollingLosing,
} from '../../api/api.js';
import { alertKind, createAlerts } from './alert.js';
import { compileAllowList, findAllowed } from './allow-list.js';
import { attempts } from './attempts.js';
import { blockRows, blockTables, createBlocks, parseBlocked } from './blocks.js';
import { createEnds, SOURCE, SOURCE_WORDS } from './ends.js';
import { createEvidence } from './evidence.js';
import { createPortFloods, PORT_COUNTERS } from './port-flood.js';
import { createScanDetector, NO_SCANS, SKETCHES } from './scan.js';
import { createSilence, NO_EVENTS } from './silence.js';
import { createSynFloods, SYN_COUNTERS } from './syn-flood.js';

const { TCP, UDP } = Protocol;
/** Sources checked in each tenth of a second: all of 32,768 in 13 s. */
const WALK_SLOTS = 256;

export default defineMiddlebox({
  name: 'idps',
  help: 'Detects and blocks port scans, port floods and SYN floods, by what all sites see together.',
  addresses: 'watches',
  ipv6: true,

  options: {
    dry_run: option.flag('only alerts: nothing is dropped', false, { change: HOT }),
    allow: option.rules(
      'prefixes that are never suspected nor blocked: a file of them, or several lines; reload rules replaces them',
      {
        compile: compileAllowList,
        optional: true,
      },
    ),
    scans: option.flag('whether port scans are looked for', true),
    excess: option.count(
      'by how many more contacts must fail than succeed for a source to be a scanner: n errs with a chance of 4^-n (TRW)',
      12,
      { min: 4, max: 1000, change: HOT },
    ),
    answer_seconds: option.seconds('how long a contact has to be answered before it has failed', 3, {
      max: 60,
      change: HOT,
    }),
    replies: option.choice(
      'seen: a site sees what answers. bypass: replies take a way that no site sees, so later packets of the source are an answer',
      ['seen', 'bypass'],
      'seen',
    ),
    suspend_max: option.seconds(
      'how long silence is not judged while a member is unheard or behind; then it is, with an alarm',
      600,
      { max: 86_400, change: HOT },
    ),
    ports: option.count('ports, on a sixteenth as many addresses, that a source may reach, answered or not', 256, {
      min: 32,
      max: 65_536,
      change: HOT,
    }),
    memory_seconds: option.seconds('how long contacts count, at least; twice that at most', 3600, {
      max: 86_400,
      change: allSites('members would count a contact in different periods'),
    }),
    block_seconds: option.seconds('how long a scanner is blocked; twice memory_seconds or more', 7200, {
      max: 30 * 86_400,
      change: HOT,
    }),
    ipv6_prefix: option.count('bits of an IPv6 address that are one source', 64, {
      min: 32,
      max: 128,
      change: allSites('members would count one source under different keys'),
    }),
    sources: option.count('sources that are kept track of', 32_768, {
      min: 64,
      max: 1 << 20,
      change: rollingLosing('records about sources that find no room'),
    }),
    blocks: option.count('sources blocked at a time, at most', 16_384, {
      min: 64,
      max: 1 << 20,
      change: rollingLosing('blocks that find no room'),
    }),
    port_floods: option.flag('whether floods of destination ports are looked for', true, { change: HOT }),
    port_flood_mbit: option.count('traffic to one destination port within the window that is a flood', 1024, {
      unit: 'Mbit',
      change: HOT,
    }),
    port_flood_seconds: option.seconds('the window', 1, { max: 3600, change: HOT }),
    port_block_seconds: option.seconds('how long a flooded port is blocked', 60, {
      max: 30 * 86_400,
      change: HOT,
    }),
    syn_floods: option.flag('whether SYN floods are looked for', true),
    syn_flood_rate: option.count(
      'SYNs a second to one service, three times as many as connections are completed, that are a flood',
      1000,
      { change: HOT },
    ),
  },

  counters: {
    scanners: 'sources found to scan',
    flooded_ports: 'destination ports found to be flooded',
    syn_floods: 'SYN floods found',
    blocks_full: 'blocks that found no room, or could not be logged',
    alerts_suppressed: 'alerts that were not written: too many at once',
    source_blocked: 'dropped: from a source that is blocked',
    port_blocked: 'dropped: to a destination port that is blocked',
    syn_filter_full: 'SYNs to a flooded service that passed and may have been first ones: the filter is full',
    silence_suspended: 'times judgement by silence was suspended: a member was unheard or behind',
    silence_overdrawn: 'times judgement by silence resumed after suspend_max, though a member was unheard or behind',
    syn_first: 'dropped: the first SYN of a connection to a service under a SYN flood',
  },

  records: { alert: alertKind },
  orders: { unblock: { help: 'lifts a block', parse: parseBlocked } },

  state({ sources, blocks, memory_seconds, block_seconds }, shared) {
    // Otherwise a source would be blocked again for contacts from before its block.
    if (block_seconds < 2 * memory_seconds)
      throw new RangeError(`block_seconds: ${block_seconds} is less than twice memory_seconds, ${2 * memory_seconds}`);
    const { seed, form, members } = shared;
    return {
      sources: keyedHyperLogLogs({
        capacity: sources,
        keyWords: SOURCE_WORDS,
        sketches: SKETCHES,
        epochSeconds: memory_seconds,
        seed,
      }),
      volumes: counterVector({ length: PORT_COUNTERS, form, members }),
      syns: counterVector({ length: SYN_COUNTERS, form, members }),
      ...blockTables(blocks),
      attempts: attempts(seed),
    };
  },

  views: ({ blocked, blocked_ports }, now) => ({ blocks: () => blockRows(blocked, blocked_ports, now) }),

  watch: ({ options, members }) =>
    options.scans ? createSilence(members, options, NO_EVENTS) : { look: () => {}, conditions: () => [] },

  open({ options, state, batch, counters, records, rules: { allow }, every, onOptions, members, onOrder, log }) {
    const { protocol, length } = batch;
    const ends = createEnds(batch);
    const alerts = createAlerts(records.alert, log, () => batch.count1(counters.alerts_suppressed));
    const blocks = createBlocks(state.blocked, state.blocked_ports, options, () => batch.count1(counters.blocks_full));
    const silence = createSilence(members, options, {
      suspended: () => (changed = counters.silence_suspended),
      resumed: () => (changed = 0),
      overdrawn: () => (changed = counters.silence_overdrawn),
    });
    /**
     * Counter of a change of judgement by silence that is not logged yet. 0: it resumed. `NONE`: no
     * change.
     */
    let changed: number = NONE;

    /** Logs a change. Only one worker calls it, because all see the same. */
    function sayOfSilence(): void {
      const what = changed;
      if (what === NONE) return;
      changed = NONE;
      const why = silence.reason();
      if (what === 0) return void log.info('silence is judged again: every member is heard and up to date');
      batch.count1(what);
      if (what === counters.silence_suspended) log.warn(`silence is not judged: ${why}; refusals are`);
      else log.error(`silence is judged again after suspend_max, and may accuse honest hosts: ${why}`);
    }

    const scans = options.scans
      ? createScanDetector(state.sources, blocks, alerts, isAllowed, options, batch, counters.scanners, silence)
      : NO_SCANS;
    const portFloods = createPortFloods(state.volumes, blocks, alerts, options, batch, ends, counters.flooded_ports);
    onOptions(portFloods.configure);
    let isFull = false;
    const synFloods = createSynFloods(state.syns, alerts, options, batch, ends, counters.syn_floods, () => {
      batch.count1(counters.syn_filter_full);
      isFull = true;
    });
    const evidence = createEvidence(
      batch,
      ends,
      state.attempts,
      scans,
      synFloods.completed,
      options.replies === 'bypass',
      members,
    );

    if (options.scans) {
      every(0.5, (now) => {
        silence.look(now);
        scans.tick(now);
      });
      every(0.1, (now) => evidence.tick(now));
      every(
        0.1,
        (now) => {
          scans.walk(now, WALK_SLOTS);
          sayOfSilence();
        },
        { on: 'one' },
      );
    }
    if (options.syn_floods)
      every(1, (now) => {
        synFloods.tick(now);
        if (isFull) log.warn('the filter of first SYNs is full: forged SYNs pass', { counter: 'idps_syn_filter_full' });
        isFull = false;
      });

    /** The current packet. */
    let atHand = 0;

    function isAllowed(words: Int32Array, at: number): boolean {
      const entry = findAllowed(allow, words, at);
      if (entry !== NONE) allow.count(entry, length[atHand]);
      return entry !== NONE;
    }

    /**
     * Returns true if the current packet is from a blocked source that is not on the allow list
     * now.
     */
    function isBlocked(now: number): boolean {
      return blocks.source(ends.words, SOURCE, now) && !isAllowed(ends.words, SOURCE);
    }

    onOrder('unblock', (words, now) => blocks.lift(words, now));

    function pass(i: number, now: number): void {
      const carried = protocol[i];
      const hasPorts = carried === TCP || carried === UDP;
      if (hasPorts && blocks.port(batch.ports[i] >>> 16, carried, now)) return batch.drop(i, counters.port_blocked);
      if (hasPorts && options.port_floods) portFloods.take(i, now);
      if (options.scans || options.syn_floods) evidence.look(i, now);
      if (carried === TCP && options.syn_floods && synFloods.take(i, now)) batch.drop(i, counters.syn_first);
    }

    return (now) => {
      allow.refresh();
      for (let i = 0; i < batch.count; i++) {
        if (batch.skips(i)) continue;
        ends.load(i);
        atHand = i;
        if (isBlocked(now)) batch.drop(i, counters.source_blocked);
        else pass(i, now);
      }
    };
  },
});

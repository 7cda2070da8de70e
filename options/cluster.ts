/**
 * The options of an instance that concern the cluster: its members, and how they exchange state.
 */

import { allSites, HOT, option, ROLLING } from './option.js';

/**
 * Every member has a cell in every acknowledgement vector, and a vector must fit into a message.
 */
export const MEMBERS_MAX = 64;
/** Messages carry member ids in 16 bits. */
const MEMBER_ID_MAX = 65_535;
/**
 * With less, a state message could not carry its header, a vector of all members, and the largest
 * record.
 */
const MTU_BYTES_MIN = 1280;
/**
 * The largest jumbo frame in use. Larger messages would be fragmented, and one lost fragment loses
 * the whole message.
 */
const MTU_BYTES_MAX = 9216;

/** A member of `cluster.members`, as written. */
export interface WrittenMember {
  readonly name: string;
  readonly id: number;
  readonly address: string;
  readonly slot?: number | undefined;
}

export const MEMBER = {
  name: option.form('name', 'What the member is called in tables and logs.'),
  id: option.number(
    'The number that stands for the member in messages and in replicated state. Never give a number to another site.',
    { max: MEMBER_ID_MAX },
  ),
  address: option.form(
    'ipv4',
    'The IPv4 address the member sends state messages from and receives them at. At the member itself it is an address of one of its interfaces.',
  ),
  slot: option.someCount(
    'Which of the slots is the member’s, the same at every member. Absent: the one after that of the member with the next lower id, from 0. Give it where a member with an id between others’ is added, or one is taken away, so that the others keep theirs.',
    { min: 0, max: MEMBERS_MAX - 1 },
  ),
};

export const ETCD = {
  endpoints: option.structure<string[]>('Where etcd serves clients. The others are tried when one does not answer.'),
  prefix: option.form('etcd-prefix', 'What the keys in etcd begin with; the cluster’s id follows.', '/constellation', {
    change: allSites('members with different prefixes do not find each other'),
  }),
  lease_ttl_s: option.seconds(
    'If a member does not renew its lease within this time, the others treat it as crashed.',
    10,
    { min: 2, max: 3600 },
  ),
};

export type WrittenMembership =
  | { kind: 'static' }
  | { kind: 'etcd'; endpoints: string[]; prefix: string; lease_ttl_s: number };

export const CLUSTER = {
  id: option.text(
    'Any text, the same at every member. It is hashed into every state message, so that two clusters that can hear each other do not mix.',
    undefined,
    { min: 1, max: 255, change: allSites('a member refuses the messages of another cluster') },
  ),
  self: option.form('name', 'Which of the members this instance is.'),
  members: option.structure<WrittenMember[] | undefined>(
    'All members, this one included; the same list at every member. Left out with membership by etcd.',
    { change: HOT },
  ),
  address: option.someForm(
    'ipv4',
    'With membership by etcd: this member’s address, as in `members`, which is left out then.',
  ),
  membership: option.structure<WrittenMembership>('Where the list of members comes from.', {
    change: allSites('with etcd ids and slots come from etcd, else from the files'),
  }),
  key_file: option.someForm(
    'path',
    'File with the cluster’s key, the same at every member, readable by none but the user the daemon runs as; `constellationd --generate-key FILE` makes one. State messages are encrypted and authenticated with it. SIGHUP, `constellation reload` and `constellation reload keys` read it again.',
    { change: HOT },
  ),
  insecure: option.flag(
    'true: run without a key_file though members have other addresses than loopback. Whoever can send to this host can then change its state, and who listens can read it: only for networks that nobody else is on.',
    false,
    { change: allSites('members with a key refuse messages that are not sealed') },
  ),
  slots: option.someCount(
    'Slots for members, the same at every member: more than there are members leaves room to add some while the cluster runs. External ports and totals are divided by slots. Absent: as many as the members need, at least 2; with etcd, 8.',
    { max: MEMBERS_MAX, change: allSites('ports and totals are divided by slots') },
  ),
};

export const FAULT = {
  seed: option.count('Where the sequence of faults starts; the same seed gives the same faults.', 1, {
    min: 0,
    max: 2 ** 31 - 1,
  }),
  loss: option.share('Share of messages lost.', 0),
  duplicate: option.share('Share of messages delivered twice.', 0),
  delay: option.share('Share of messages held back, and so overtaken by later ones.', 0),
  delay_ms_max: option.count('How long a message is held back at most.', 100, { min: 0, max: 60_000, unit: 'ms' }),
};

export const TRANSPORT = {
  kind: option.choice(
    'How state messages travel. multicast: one message reaches all members; the network between them has to route the groups. What only one member lacks goes to its address by unicast, so the port has to be open there too. unicast: one copy to each member, which works everywhere, as on the internet and in public clouds.',
    ['multicast', 'unicast'],
    'multicast',
    { change: allSites('members have to receive what the others send') },
  ),
  port: option.count(
    'UDP port of state messages, and TCP port of snapshots for members that join; the same at every member.',
    7400,
    { max: 65_535, change: allSites('members send to the port that they listen at themselves') },
  ),
  group: option.form('ipv4', 'The first multicast group. State object n uses the n-th group after it.', '239.83.0.0', {
    change: allSites('members have to listen to the groups that the others send to'),
  }),
  ttl: option.count('Time to live of multicast messages: how many routers they may pass, plus one.', 1, { max: 255 }),
  mtu_bytes: option.count(
    'Largest IP packet that passes between all members unfragmented. Inside a tunnel it is smaller than the link’s.',
    1500,
    {
      min: MTU_BYTES_MIN,
      max: MTU_BYTES_MAX,
      unit: 'bytes',
      change: allSites('a member refuses messages that are longer than its own'),
    },
  ),
  fault: option.structure<
    { seed: number; loss: number; duplicate: number; delay: number; delay_ms_max: number } | undefined
  >('For tests only: faults injected below the real transport, into what this member receives.'),
};

/**
 * Four keepalives in a row may be lost before a member counts as silent
 * (workers/replication/settings.ts: `silentMs`).
 */
const KEEPALIVE_MS_MAX = 1000;

export const REPLICATION = {
  ack_delay_ms: option.count('How long an acknowledgement may wait for a message to travel with.', 5, {
    min: 0,
    max: 1000,
    unit: 'ms',
    change: HOT,
  }),
  keepalive_ms: option.count(
    'A member that has nothing to say says so this often; it is also how soon a lost last message is noticed. A member counts as silent after 5 s, so several keepalives have to fit into that time.',
    200,
    { min: 10, max: KEEPALIVE_MS_MAX, unit: 'ms', change: HOT },
  ),
  join_wait_ms: option.count(
    'If a new instance hears no member with state within this time, it begins without state. Members that all start at once do not wait.',
    3000,
    { min: 0, max: 600_000, unit: 'ms', change: ROLLING },
  ),
  retransmit_min_ms: option.count(
    'The shortest time to wait for an acknowledgement before sending again, however near the members are.',
    20,
    { min: 1, max: 5000, unit: 'ms', change: HOT },
  ),
  log_bytes: option.count(
    'Size of each worker’s log ring: operations between a worker and the send thread. Rounded up to a power of two.',
    4 * 1024 ** 2,
    { min: 64 * 1024, max: 1024 ** 3, unit: 'bytes' },
  ),
  unit_log_bytes: option.count(
    'How much this member keeps, for each state object, of what not every other member has acknowledged. Rounded up to a power of two.',
    8 * 1024 ** 2,
    { min: 64 * 1024, max: 1024 ** 3, unit: 'bytes' },
  ),
  bandwidth: option.count(
    'What this member sends at most, in bits a second of IP packets, repetitions and acknowledgements included; 0: no limit. Kept over any 100 ms as long as it carries four of the longest packets to every other member in that time.',
    0,
    { min: 0, max: 10 ** 12, unit: 'bit/s', change: HOT },
  ),
  max_lag_ms: option.count(
    'How old a record of this member may be that another member has not acknowledged; 0: no bound. As a member’s lag nears the bound, records wait up to a quarter of it to coalesce. Beyond the bound the member is reported, then detached: what it misses is kept for it coalesced. Set it to several round trips at least.',
    0,
    { min: 0, max: 600_000, unit: 'ms', change: ROLLING },
  ),
  backlog_bytes: option.count(
    'Memory for the backlog of members that are silent or behind when the unit log is full: coalesced, seldom more for each than the state itself. A member for which it does not suffice needs a snapshot.',
    512 * 1024 ** 2,
    { min: 0, max: 2 ** 40, unit: 'bytes' },
  ),
};

export const STATE = {
  counting: option.choice(
    'How counters and sketches replicate what they counted. totals: what they have counted in all, which survives losses, restarts and partitions, and costs 8 bytes a cell and member. increments: what came since, which costs 8 bytes a cell, and may count wrongly where a thread dies or a member is silent for long.',
    ['totals', 'increments'],
    'totals',
    { change: allSites('the records of counters have another meaning') },
  ),
  sketch_seed: option.form(
    'secret',
    'A secret that the hashes of sketches are keyed with, so that nobody can choose packets that meet in one cell. Absent: the hashes are known to everybody.',
    '',
    { change: allSites('members would count the same key in different cells') },
  ),
  file: option.someForm(
    'path',
    'File that the state is saved to when the instance stops in order, and by constellation save, and from which the next start goes on if no member with state is heard. Its folder has to exist; each member has a file of its own. Absent: none is written, and a restart of the only instance loses every connection.',
  ),
  restore_within_s: option.seconds('A state file that was saved longer ago is not restored. 0: none ever is.', 600, {
    min: 0,
    max: 604_800,
  }),
};

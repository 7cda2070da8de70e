import type {
  AdminSource,
  CounterRow,
  Drained,
  FlowRow,
  KeysInUse,
  LagRow,
  MemberChange,
  MemberRow,
  NewMember,
  ObjectRow,
  PeerRow,
  RecordFigures,
  RecordRow,
  RejectRow,
  Reloaded,
  RuleRow,
  RulesRow,
  Saved,
  Standing,
  Status,
  ThreadRow,
  ViewRow,
} from '../../../daemon/views/source.js';

const STATUS: Status = {
  state: 'ready',
  state_reason: 'takes packets',
  version: '1.2.3',
  build: '0123456789ab',
  other_builds: ['b: ba9876543210 (1.2.3)'],
  cluster: 'demo',
  member: 'a',
  id: 1,
  pid: 4711,
  uptime_s: 60,
  middleboxes: ['nat'],
  ports: ['inside = in0 (native)', 'outside = out0 (generic)'],
  transport: 'multicast 239.83.0.0:7400',
  conditions: ['idps: silence is not judged'],
  membership: 'static, view 0',
  key: 2,
  threads: 3,
  threads_ready: 3,
  peers: 2,
  peers_reachable: 1,
  rx_packets: 1000,
  tx_packets: 990,
  dropped_packets: 10,
  rx_missed_packets: 3,
  tx_unsent_packets: 2,
};

const PEERS: readonly PeerRow[] = [
  {
    name: 'b',
    id: 2,
    address: '10.255.0.2',
    state: 'reachable',
    rtt_ms: 101.26,
    rtt_min_ms: 100,
    heard_ms_ago: 12,
    clock_skew_ms: -3.5,
    key: 2,
    build: 'ba9876543210',
    attachment: 'backlog',
    backlog_records: 5,
    unacknowledged_records: 7,
    missing_records: 0,
  },
  {
    name: 'long-name',
    id: 30,
    address: '10.255.0.30',
    state: 'never',
    rtt_ms: null,
    rtt_min_ms: null,
    heard_ms_ago: null,
    clock_skew_ms: null,
    key: null,
    build: null,
    attachment: 'attached',
    backlog_records: 0,
    unacknowledged_records: 123_456,
    missing_records: 0,
  },
];

const OBJECTS: readonly ObjectRow[] = [
  {
    id: 0,
    name: 'nat.bindings',
    delivery: 'any-order',
    digest: '0123456789abcdef',
    records: 20,
    unacknowledged_records: 3,
    error_bound: 7,
    differs_from: ['b'],
    figures: { used: 10, capacity: 65_536 },
  },
];

const THREADS: readonly ThreadRow[] = [
  { slot: 0, name: 'worker 0', state: 'ready', core: 0, tid: 100, restarts: 1, heartbeat: 12_345 },
  { slot: 1, name: 'send', state: 'ready', core: null, tid: 101, restarts: 0, heartbeat: 9 },
];

const COUNTERS: readonly CounterRow[] = [
  { name: 'rx_packets', help: 'packets received', kind: 'counter', total: 1000, threads: [1000, 0] },
  { name: 'nat_exhausted', help: 'dropped: no external port left', kind: 'counter', total: 5, threads: [5, 0] },
  { name: 'nat_hostile', help: 'a name\nwith a line end', kind: 'gauge', total: 0, threads: [0, 0] },
];

const MEMBERS: readonly MemberRow[] = [
  { name: 'a', id: 1, slot: 0, address: '10.255.0.1', role: 'self', state: 'ready' },
  { name: 'b', id: 2, slot: 1, address: '10.255.0.2', role: 'member', state: 'reachable' },
];

const RECORDS: readonly RecordRow[] = [
  { timestamp: '2026-01-01T00:00:00.000+0000', event_type: 'bound', site: 'a', port: 4711 },
  {
    timestamp: '2026-01-01T00:00:01.000+0000',
    event_type: 'alert',
    site: 'a',
    src_ip: '192.0.2.66',
    dest_ip: '2001:db8::1',
    dest_port: 22,
    proto: 'TCP',
    alert: { signature: 'a scan', severity: 2, action: 'blocked' },
  },
];

/** Flow `i` of many, alternating between TCP and UDP. */
export function flow(i: number): FlowRow {
  return {
    object: 'nat.bindings',
    protocol: i % 2 === 0 ? 6 : 17,
    inside: { address: `10.0.${(i >> 8) & 255}.${i & 255}`, port: 1024 + (i % 60_000) },
    external: { address: '203.0.113.1', port: 2048 + (i % 60_000) },
    remote: i % 3 === 0 ? null : { address: '198.51.100.7', port: 80 },
    state: i % 5 === 0 ? 'new' : 'established',
    expires_s: 300,
  };
}

/** An instance that only says things, and notes what was asked of it. */
export class FakeSource implements AdminSource {
  flowCount = 10;
  /** Rows the command took from the flows' generator. */
  flowsTaken = 0;
  stopped = 0;
  readonly orders: string[] = [];
  private lifted = 'blocked';
  readonly restarted: number[] = [];
  /** What changes of the list of members were asked for. */
  readonly changes: (
    | NewMember
    | { readonly removed: string; readonly force: boolean }
    | { readonly evicted: string; readonly force: boolean }
  )[] = [];
  standing: Standing = { state: 'ready', reason: 'takes packets' };
  drained: Drained | Error = { complete: true, unacknowledged_records: 0 };
  /** Drain waits for this. */
  gate: Promise<void> = Promise.resolve();
  /** How often that was asked. */
  drains = 0;
  failure: Error | undefined;
  /** Why rules cannot be loaded. */
  rulesProblem: string | null = null;

  status(): Status {
    if (this.failure !== undefined) throw this.failure;
    return STATUS;
  }

  peers(): Promise<readonly PeerRow[]> {
    return Promise.resolve(PEERS);
  }

  objects(): readonly ObjectRow[] {
    return OBJECTS;
  }

  lag(): readonly LagRow[] {
    return [
      { object: 'nat.bindings', origin: 'a', member: 'b', missing_records: 3, lag_ms: 120.4, error_bound: 7 },
      { object: 'nat.bindings', origin: 'b', member: 'a', missing_records: 0, lag_ms: 0, error_bound: null },
    ];
  }

  *flows(): Generator<FlowRow> {
    for (let i = 0; i < this.flowCount; i++) {
      this.flowsTaken++;
      yield flow(i);
    }
  }

  threads(): readonly ThreadRow[] {
    return THREADS;
  }

  counters(): readonly CounterRow[] {
    return COUNTERS;
  }

  members(): readonly MemberRow[] {
    return MEMBERS;
  }

  async addMember(member: NewMember): Promise<MemberChange> {
    this.changes.push(member);
    return { ...MEMBERS[1], ...member, slot: member.slot ?? 2, note: 'here' };
  }

  async removeMember(name: string, force: boolean): Promise<MemberChange> {
    this.changes.push({ removed: name, force });
    return { ...MEMBERS[1], role: 'left', note: 'here' };
  }

  async evictMember(name: string, force: boolean): Promise<MemberChange> {
    this.changes.push({ evicted: name, force });
    return { ...MEMBERS[1], note: 'here' };
  }

  async join(): Promise<Standing> {
    await this.gate;
    return this.standing;
  }

  rejects(): readonly RejectRow[] {
    return [{ address: '192.0.2.66', refused: 1000, inherited: 3, reason: 'seal_forged', ms_ago: 1500 }];
  }

  rules(): RuleRow[] {
    return [
      { middlebox: 'firewall', line: 3, packets: 5, bytes: 300, text: 'tcp dport 443 accept' },
      { middlebox: 'firewall', line: 4, packets: 0, bytes: 0, text: 'policy drop' },
    ];
  }

  async reload(isCheck: boolean): Promise<Reloaded> {
    await this.gate;
    if (isCheck) return { applied: [], restart: [], unchanged: 9 };
    return {
      applied: [{ option: 'log.level', from: 'info', to: 'debug' }],
      restart: [
        { option: 'cluster.slots', from: '2', to: '4', change: 'all-sites', reason: 'ports are divided by slots' },
      ],
      unchanged: 7,
    };
  }

  async reloadRules(): Promise<RulesRow[]> {
    await this.gate;
    if (this.rulesProblem !== null) throw new Error(this.rulesProblem);
    return [{ middlebox: 'firewall', rules: 'rules', file: '/etc/constellation/site.rules', entries: 2, version: 2 }];
  }

  reloadKeys(): KeysInUse {
    if (this.failure !== undefined) throw this.failure;
    return { sending: 2, accepted: [2, 1] };
  }

  records(type: string | null): readonly RecordRow[] {
    return RECORDS.filter((row) => type === null || row.event_type === type);
  }

  view(name: string): readonly ViewRow[] {
    if (name !== 'blocks') throw new Error(name);
    return [{ middlebox: 'idps', blocked: '192.0.2.66', state: this.lifted, expires_s: 7000, signature: 'a scan' }];
  }

  order(name: string, text: string): void {
    this.orders.push(`${name} ${text}`);
    this.lifted = 'lifted';
  }

  async reopenRecords(): Promise<RecordFigures> {
    if (this.failure !== undefined) throw this.failure;
    return { file: '/var/log/eve.json', written: 7, lost: 1 };
  }

  async drain(): Promise<Drained> {
    this.drains++;
    await this.gate;
    if (this.drained instanceof Error) throw this.drained;
    return this.drained;
  }

  async restart(slot: number): Promise<void> {
    this.restarted.push(slot);
  }

  async save(): Promise<Saved> {
    if (this.failure !== undefined) throw this.failure;
    return { file: '/var/lib/constellation/state', bytes: 4096, saved_ms: 1_800_000_000_000 };
  }

  shutdown(): void {
    this.stopped++;
  }
}

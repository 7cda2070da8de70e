/**
 * The order in which a thread tries external ports for a new binding. Thread-local: it proposes
 * places, and the binding takes or rejects them.
 *
 * Ports are divided into blocks of 64, which are assigned to the members in turn (block modulo
 * members). A member's blocks are its lease. At each address a thread tries:
 *
 *     proposals by key                               the same at every member, see below
 *     the member's own ports                         a few at random, then all in turn
 *     any port                                       a few at random, then all in turn
 *
 * Own ports of either parity are tried before those of others. If a site gets a reply to a port of
 * its own lease that is not bound there, it lets the reply wait only if another member's leases
 * look used up (port-leases.ts).
 *
 * The thread begins with the address that the inside host is paired with (RFC 4787 REQ-2, RFC 6888
 * REQ-2). Other addresses follow only if pairing is not configured. A host is paired with the
 * address in use (address-use.ts) whose hash with the host's bucket is largest. So members that use
 * the same addresses pair alike, and if an address is added, only the hosts that are paired with it
 * change. Ports have the source port's parity (RFC 4787 REQ-4) until none of these is free. A
 * source port below 1024 gets a port below 1024, and any other one a port above (RFC 4787 REQ-3).
 *
 * **Proposals by key.** Only one member takes a leased port, so two endpoints never take one port.
 * But an endpoint whose first packets leave by two members at once gets two ports. A port that is a
 * function of the endpoint alone is the same at every member, and after a restart. The function is
 * pseudorandom under the secret `clusterSecret`, so ports are as hard to guess as random ones (RFC
 * 6888 REQ-15, RFC 6056). If the first proposal is taken, the next of a fixed series is tried. Two
 * members can then propose one port for two endpoints at the same moment, which the binding
 * settles. `keyed` says which protocols have proposals among all ports. The others have proposals
 * among the member's own ports.
 *
 * Work is bounded. An allocation checks at most `SCAN_BUDGET` ports in sequence among own ports,
 * and as many among all ports. At further addresses after that, it checks only a few at random. A
 * region that was scanned once without a free port is skipped until the next second. So a flood of
 * new flows at an exhausted pool costs a few loads each.
 */

import { randomBytes } from 'node:crypto';
import { hash2, type WideHash } from '../../hash.js';
import { NONE } from '../../none.js';
import { sipHash2 } from '../../siphash.js';
import type { AddressUse } from './address-use.js';
import { PORTS_PER_ADDRESS } from './port-claims.js';

export const BLOCK_PORTS = 64;
export const WELL_KNOWN_PORTS = 1024;
const RANDOM_TRIES = 8;
/**
 * Ports proposed by key. While three of four ports are taken, one endpoint in a hundred finds none
 * of these free.
 */
const KEYED_TRIES = 16;
const SCAN_BUDGET = 1024;
/** The part of the scan budget that is left for ports of the other parity, at the first address. */
const OTHER_PARITY_BUDGET = SCAN_BUDGET / 2;

/**
 * Fixed key for the choice of address, so that every member pairs an inside host with the same one.
 * It is not secret.
 */
const PAIRING_KEY = 0x70616972;
/** Inside hosts are paired by bucket: 2^10 buckets, from the high bits of a hash. */
const BUCKET_SHIFT = 22;
const BUCKETS = 1 << (32 - BUCKET_SHIFT);

export interface PortRange {
  /** Inclusive. */
  readonly first: number;
  readonly last: number;
}

/**
 * The blocks of `range` that one member leases. Their n-th port is `at(n)`, or `NONE` if that is
 * outside the range.
 */
export class PortRegion {
  readonly size: number;
  readonly range: PortRange;
  private readonly start: number;
  private readonly step: number;

  constructor(range: PortRange, memberIndex: number, memberCount: number) {
    const firstBlock = Math.trunc(range.first / BLOCK_PORTS);
    const blocks = Math.trunc(range.last / BLOCK_PORTS) - firstBlock + 1;
    const own = Math.max(0, Math.ceil((blocks - memberIndex) / memberCount));
    this.range = range;
    this.size = own * BLOCK_PORTS;
    this.start = (firstBlock + memberIndex) * BLOCK_PORTS;
    this.step = memberCount * BLOCK_PORTS;
  }

  at(n: number): number {
    const port = this.start + Math.trunc(n / BLOCK_PORTS) * this.step + (n % BLOCK_PORTS);
    return port >= this.range.first && port <= this.range.last ? port : NONE;
  }
}

/**
 * The two classes of ports of a range: well-known ports and the others. If the range has no ports
 * of a class, the class is the whole range.
 */
export function classesOf(range: PortRange): readonly [PortRange, PortRange] {
  const lastKnown = WELL_KNOWN_PORTS - 1;
  const low = range.first <= lastKnown ? { first: range.first, last: Math.min(range.last, lastKnown) } : range;
  const high = range.last > lastKnown ? { first: Math.max(range.first, WELL_KNOWN_PORTS), last: range.last } : range;
  return [low, high];
}

interface AllocatorOptions {
  /** Raw external addresses, in the order of their places. */
  readonly addresses: readonly number[];
  readonly use: Pick<AddressUse, 'version' | 'isBarred'>;
  /** Ports to use; split at 1024. */
  readonly range: PortRange;
  /**
   * This member's index, and the number of members, for leases. 0 of 1: this member may take all
   * ports.
   */
  readonly memberIndex: number;
  readonly memberCount: number;
  /** Whether an inside host gets ports of one address only. */
  readonly paired: boolean;
  /**
   * Four words, the same at every member. If all are 0, there is no secret, and no port is proposed
   * by key. They may change, so they are read at each allocation.
   */
  readonly secret: Int32Array;
  /**
   * Bits by protocol index. Ports of these protocols are proposed by key among all ports, those of
   * the others among the member's own.
   */
  readonly keyed: number;
  /**
   * Two words that seed the random choices. Default: random words, so that nobody outside can
   * predict the next port.
   */
  readonly seed?: Int32Array;
}

/**
 * The order of tries. `KEYED` comes first at each address. In a region, ports of the source port's
 * parity are tried at random, then in turn; then the same for the other parity.
 */
const Stage = { KEYED: 0, RANDOM: 1, PARITY: 2, RANDOM_OTHER: 3, OTHER_PARITY: 4 } as const;

export class PortAllocator {
  readonly addresses: number;
  /** Number of addresses tried for one inside host. */
  private readonly hops: number;
  /**
   * By class: the regions of own ports and of all ports. If all ports are own, there is only one
   * region.
   */
  private readonly regions: readonly (readonly PortRegion[])[];
  private readonly regionCount: number;

  // Per protocol, address, class, region and parity: the scan position, the number of port pairs
  // seen since the last free one, and the coarse second until which the region is skipped.
  private readonly cursors: Int32Array;
  private readonly seen: Int32Array;
  private readonly restUntil: Int32Array;

  /**
   * The raw external addresses, which of them are in use, and by bucket of inside hosts the index
   * of the paired address.
   */
  private readonly external: readonly number[];
  private readonly use: Pick<AddressUse, 'version' | 'isBarred'>;
  private readonly pairing = new Int16Array(BUCKETS);
  private pairingOf: number = NONE;

  private readonly seed: Int32Array;
  private draws = 0;
  private readonly secret: Int32Array;
  private readonly keyed: number;

  // The current allocation.
  private protocolIndex = 0;
  private paired = 0;
  private parity = 0;
  private class = 0;
  private now = 0;
  private hop = 0;
  private regionIndex = 0;
  private region: PortRegion;
  private stage: number = Stage.RANDOM;
  private tries = 0;
  private budget = 0;
  private scan = 0;
  /**
   * The keyed hash of the endpoint. Then the next pair of ports (even and odd) of `proposed`, and
   * the step from pair to pair.
   */
  private readonly hashed: WideHash = { first: 0, second: 0 };
  private hasKey = false;
  private proposed: PortRegion;
  private pair = 0;
  private stride = 1;
  /** Where `around` continues: an index into the ports of the class, and the address index. */
  private aroundAt = 0;
  private aroundAddress = 0;

  constructor(options: AllocatorOptions) {
    const { range, memberIndex, memberCount, paired, secret, keyed } = options;
    const addresses = options.addresses.length;
    this.external = options.addresses;
    this.use = options.use;
    this.seed = options.seed ?? new Int32Array(new Uint8Array(randomBytes(8)).buffer);
    this.secret = secret;
    this.keyed = keyed;
    this.addresses = addresses;
    this.hops = paired ? 1 : addresses;
    this.regions = classesOf(range).map((part) =>
      memberCount === 1
        ? [new PortRegion(part, 0, 1)]
        : [new PortRegion(part, memberIndex, memberCount), new PortRegion(part, 0, 1)],
    );
    this.regionCount = this.regions[0].length;
    this.region = this.regions[0][0];
    this.proposed = this.region;
    const scans = 3 * addresses * 2 * this.regionCount * 2;
    this.cursors = new Int32Array(scans);
    this.seen = new Int32Array(scans);
    this.restUntil = new Int32Array(scans);
    for (let i = 0; i < scans; i++) this.cursors[i] = this.draw() >>> 1;
  }

  /** Whether there is a secret to propose ports by. */
  get proposesByKey(): boolean {
    const { secret } = this;
    return (secret[0] | secret[1] | secret[2] | secret[3]) !== 0;
  }

  /**
   * Begins an allocation for the inside host `address` (raw) and its port (host order). `key` is
   * the endpoint's port and protocol as one word.
   */
  start(protocolIndex: number, address: number, key: number, port: number, now: number): void {
    this.protocolIndex = protocolIndex;
    const { version } = this.use;
    if (version !== this.pairingOf) this.pairBuckets(version);
    this.paired = this.pairing[hash2(PAIRING_KEY, 0, address, 0) >>> BUCKET_SHIFT];
    this.class = port < WELL_KNOWN_PORTS ? 0 : 1;
    this.parity = port & 1;
    this.now = now;
    this.hop = 0;
    this.budget = SCAN_BUDGET;
    this.hasKey = this.proposesByKey;
    if (this.hasKey) {
      sipHash2(this.secret, address, key, this.hashed);
      const all = (this.keyed >>> protocolIndex) & 1;
      this.proposed = this.regions[this.class][all === 1 ? this.regionCount - 1 : 0];
    }
    this.enterAddress();
  }

  /**
   * Pairs each bucket of inside hosts with an address in use, as every member does. `NONE` if no
   * address is in use.
   */
  private pairBuckets(version: number): void {
    const { external, pairing, use } = this;
    this.pairingOf = version;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      let best: number = NONE;
      let most = -1;
      for (let index = 0; index < external.length; index++) {
        const weight = hash2(PAIRING_KEY, 1, external[index], bucket) >>> 0;
        if (weight <= most || use.isBarred(index)) continue;
        best = index;
        most = weight;
      }
      pairing[bucket] = best;
    }
  }

  /** The next place to try, or `NONE` if none is left or enough were tried. */
  next(): number {
    while (this.hop < this.hops) {
      if (this.stage === Stage.KEYED) {
        if (this.tries === KEYED_TRIES) {
          this.enter(0);
          continue;
        }
        this.tries++;
        const port = this.proposed.at((this.pair << 1) | this.parity);
        this.pair = (this.pair + this.stride) % (this.proposed.size >>> 1);
        if (port !== NONE) return this.placeOf(port);
      } else if (this.stage === Stage.RANDOM || this.stage === Stage.RANDOM_OTHER) {
        if (this.tries === RANDOM_TRIES) {
          this.enterScan(this.stage + 1);
          continue;
        }
        this.tries++;
        const n = Math.trunc(((this.draw() >>> 0) / 2 ** 32) * this.region.size);
        const parity = this.stage === Stage.RANDOM ? this.parity : 1 - this.parity;
        const port = this.region.at((n & ~1) | parity);
        if (port !== NONE) return this.placeOf(port);
      } else {
        const pairs = this.region.size >>> 1;
        if (this.restUntil[this.scan] > this.now || this.seen[this.scan] >= pairs) {
          if (this.seen[this.scan] >= pairs) {
            this.seen[this.scan] = 0;
            this.restUntil[this.scan] = this.now + 1;
          }
          this.leaveScan();
          continue;
        }
        if (this.budget === (this.hop === 0 && this.stage === Stage.PARITY ? OTHER_PARITY_BUDGET : 0)) {
          this.leaveScan();
          continue;
        }
        this.budget--;
        this.seen[this.scan]++;
        const cursor = (this.cursors[this.scan] + 1) % pairs;
        this.cursors[this.scan] = cursor;
        const port = this.region.at(2 * cursor + (this.stage === Stage.PARITY ? this.parity : 1 - this.parity));
        if (port !== NONE) return this.placeOf(port);
      }
    }
    return NONE;
  }

  /** Notes that the last proposed place was taken. */
  taken(): void {
    if (this.stage === Stage.PARITY || this.stage === Stage.OTHER_PARITY) this.seen[this.scan] = 0;
  }

  /**
   * Whether the last proposed port came after those tried at random among all ports. Then few ports
   * are free.
   */
  get isCrowded(): boolean {
    return this.stage > Stage.RANDOM && this.regionIndex === this.regionCount - 1;
  }

  /** Whether the current allocation could have a place. */
  mayHave(place: number): boolean {
    const port = place & (PORTS_PER_ADDRESS - 1);
    const address = Math.trunc(place / PORTS_PER_ADDRESS);
    const { first, last } = this.regions[this.class][0].range;
    return (
      Math.trunc(address / this.addresses) === this.protocolIndex &&
      !this.use.isBarred(address % this.addresses) &&
      (this.hops > 1 || address % this.addresses === this.paired) &&
      port >= first &&
      port <= last
    );
  }

  /**
   * Sets up as if an allocation were under way for the ports of a protocol, an address and a class.
   * `turn` numbers these ranges from 0.
   */
  aim(turn: number): void {
    this.class = turn & 1;
    this.paired = (turn >>> 1) % this.addresses;
    this.protocolIndex = Math.trunc((turn >>> 1) / this.addresses);
  }

  /**
   * Chooses at random where `around` begins, among all ports that the current allocation could
   * have.
   */
  lookAround(): void {
    const all = this.regions[this.class][this.regionCount - 1];
    this.aroundAt = Math.trunc(((this.draw() >>> 0) / 2 ** 32) * all.size);
    const hop = this.hops === 1 ? 0 : (this.draw() >>> 0) % this.addresses;
    this.aroundAddress = this.paired === NONE ? 0 : (this.paired + hop) % this.addresses;
  }

  /** The next place there, in turn. `NONE` if that port is outside the range. */
  around(): number {
    const all = this.regions[this.class][this.regionCount - 1];
    if (all.size === 0) return NONE;
    const port = all.at(this.aroundAt);
    this.aroundAt = (this.aroundAt + 1) % all.size;
    return port === NONE ? NONE : (this.protocolIndex * this.addresses + this.aroundAddress) * PORTS_PER_ADDRESS + port;
  }

  /** Begins at the address of the current hop, or at the next one in use. */
  private enterAddress(): void {
    if (this.paired === NONE) this.hop = this.hops;
    while (this.hop < this.hops && this.use.isBarred(this.addressIndex)) this.hop++;
    if (this.hop === this.hops) return;
    if (!this.hasKey || this.proposed.size === 0) {
      this.enter(0);
      return;
    }
    this.stage = Stage.KEYED;
    this.tries = 0;
    const pairs = this.proposed.size >>> 1;
    this.pair = (this.hashed.first >>> 0) % pairs;
    // The stride is odd, and a block has 32 pairs, so the first 32 proposals differ.
    this.stride = ((this.hashed.second >>> 0) % pairs) | 1;
  }

  private enter(regionIndex: number): void {
    this.regionIndex = regionIndex;
    this.region = this.regions[this.class][regionIndex];
    this.tries = 0;
    const resting =
      this.restUntil[this.scanOf(this.parity)] > this.now && this.restUntil[this.scanOf(1 - this.parity)] > this.now;
    if (this.region.size === 0 || resting) this.enterScan(Stage.PARITY);
    else this.stage = Stage.RANDOM;
  }

  private enterScan(stage: number): void {
    this.stage = stage;
    this.scan = this.scanOf(stage === Stage.PARITY ? this.parity : 1 - this.parity);
  }

  private leaveScan(): void {
    if (this.stage === Stage.OTHER_PARITY) this.leaveRegion();
    else if (this.restUntil[this.scanOf(1 - this.parity)] > this.now) this.enterScan(Stage.OTHER_PARITY);
    else {
      this.stage = Stage.RANDOM_OTHER;
      this.tries = 0;
    }
  }

  private leaveRegion(): void {
    if (this.regionIndex + 1 < this.regionCount) {
      // Own ports may all be taken while ports of others are free.
      if (this.hop === 0) this.budget = SCAN_BUDGET;
      this.enter(this.regionIndex + 1);
    } else {
      this.hop++;
      this.enterAddress();
    }
  }

  private get addressIndex(): number {
    return (this.paired + this.hop) % this.addresses;
  }

  private scanOf(parity: number): number {
    const address = this.protocolIndex * this.addresses + this.addressIndex;
    return (((address * 2 + this.class) * this.regionCount + this.regionIndex) << 1) | parity;
  }

  private placeOf(port: number): number {
    return (this.protocolIndex * this.addresses + this.addressIndex) * PORTS_PER_ADDRESS + port;
  }

  private draw(): number {
    this.draws = (this.draws + 1) | 0;
    return hash2(this.seed[0], this.seed[1], this.draws, 0);
  }
}

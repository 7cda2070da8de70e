/**
 * Finds members whose messages are refused for a reason that an operator must fix: another key,
 * another cluster, or another declaration of state. Such members exist and have state, so a
 * starting instance must not begin empty because of the refusal.
 *
 * **Who can cause it.** Refused messages prove nothing: anybody who can send from a member's
 * address can make that member look refused. So a single datagram has no effect. It takes several,
 * spread over time, and the condition ends when no more arrive. A lasting flood only delays an
 * instance that hears no member with state. The operator can override it: `constellation join
 * alone`.
 */

import type { RejectRow } from '../../shm/reject-table.js';
import type { PeerStatus } from '../../workers/replication/membership/peers.js';
import { REFUSALS, type Refusal } from '../../workers/replication/metrics.js';
import { SEAL_VERSION } from '../../workers/replication/wire/seal.js';

/** Refusals that an operator must fix, and how. */
const REMEDIES: Partial<Record<Refusal, string>> = {
  unsealed: 'it sends without a key; set cluster.key_file there',
  magic: 'it seals its messages, and this instance has no key; set cluster.key_file here',
  seal_version: `it does not send sealed format ${SEAL_VERSION}, the only one read here; run the same release everywhere`,
  seal_key: 'its key is not in our key file; give both the same file',
  seal_forged: 'another secret, or another cluster.id; compare both',
  seal_busy: 'too many messages of unknown incarnations arrive to be checked; compare key files and cluster.id',
  version: 'it speaks a format that is not known here; run neighbouring releases',
  cluster: 'it is of another cluster; compare cluster.id',
  meaning: 'its state means something else; compare release, middleboxes, names of ports, state and cluster.slots',
  object: 'its state is declared differently; compare middleboxes, names of ports, state and cluster.slots',
  sender: 'it has an id that is not listed here; compare cluster.members',
};

/** Minimum number of times at which messages were refused. */
const SIGHTINGS_MIN = 3;
/** Minimum distance of these times, in keepalive intervals. */
const SPACING = 1 / 2;
/** Number of strangers that are logged, so that forged addresses cannot fill the log. */
const STRANGERS_MAX = 16;

interface RefusalWatchOptions {
  readonly keepaliveMs: number;
  /** A refusal ends if no message was refused for this time. */
  readonly silentMs: number;
  readonly warn: (text: string) => void;
  /** Known differences at the member with this id, in words; `null` or absent: none. */
  readonly differs?: (id: number) => string | null;
}

interface RefusedMember {
  readonly id: number;
  readonly name: string;
  readonly address: string;
  readonly reason: Refusal;
}

interface Sighting {
  count: number;
  at: number;
}

export class RefusalWatch {
  private readonly options: RefusalWatchOptions;
  private sightings = new Map<string, Sighting>();
  private refusedNow: readonly RefusedMember[] = [];
  private said = new Set<string>();
  private readonly strangers = new Set<string>();

  constructor(options: RefusalWatchOptions) {
    this.options = options;
  }

  /** Members that are refused and not heard. */
  get refused(): readonly RefusedMember[] {
    return this.refusedNow;
  }

  /** The refused members, in words; null: none. */
  get problem(): string | null {
    if (this.refusedNow.length === 0) return null;
    const { differs } = this.options;
    return this.refusedNow
      .map((member) => {
        const difference = differs?.(member.id) ?? null;
        return difference === null ? describeRefused(member) : `${describeRefused(member)}: ${difference}`;
      })
      .join('; ');
  }

  /** Reads the table of refusals; called several times a second. `now` in ms of `monotonicMs`. */
  look(rows: readonly RejectRow[], peers: readonly PeerStatus[], now: number): void {
    const { warn, silentMs } = this.options;
    const before = this.sightings;
    this.sightings = new Map();
    const refused: RefusedMember[] = [];
    for (const { address, reason: number, at } of rows) {
      const reason = REFUSALS[number];
      if (REMEDIES[reason] === undefined || now - at > silentMs) continue;
      const sighting = this.sight(before.get(address), at);
      this.sightings.set(address, sighting);
      if (sighting.count < SIGHTINGS_MIN) continue;
      const peer = peers.find((candidate) => candidate.address === address);
      if (peer === undefined) this.noteStranger(address, reason);
      else if (peer.state !== 'heard') refused.push({ id: peer.id, name: peer.name, address, reason });
    }
    this.refusedNow = refused.toSorted((a, b) => a.name.localeCompare(b.name));
    const names = new Set(refused.map(({ name }) => name));
    for (const member of refused) if (!this.said.has(member.name)) warn(describeRefused(member));
    this.said = names;
  }

  private sight(known: Sighting | undefined, at: number): Sighting {
    if (known === undefined) return { count: 1, at };
    if (at - known.at < this.options.keepaliveMs * SPACING) return known;
    return { count: known.count + 1, at };
  }

  /**
   * Warns once about a sender that has our key and is not a member. Other messages from unknown
   * addresses are only in `show rejects`.
   */
  private noteStranger(address: string, reason: Refusal): void {
    if (reason !== 'sender' || this.strangers.has(address) || this.strangers.size >= STRANGERS_MAX) return;
    this.strangers.add(address);
    this.options.warn(
      `messages from ${address} are refused: it speaks as a member, and is none here; ` +
        'if it should be one, give member add at this instance too, and add it to cluster.members',
    );
  }
}

function describeRefused({ name, address, reason }: RefusedMember): string {
  return `messages of member ${name} (${address}) are refused: ${REMEDIES[reason]} (${reason}; see show rejects)`;
}

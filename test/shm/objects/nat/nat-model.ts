/**
 * What the NAT binding should say, worked out the slow way: a fold of all records, each a join into
 * two maps.
 */

import type { NatBinding, NatEntry } from '../../../../shm/objects/nat/nat-binding.js';
import { NatRecord } from '../../../../shm/objects/nat/nat-record.js';
import type { TestRecord } from '../replica.js';

interface Flow {
  readonly generation: number;
  readonly rank: number;
  readonly place: number;
  readonly expires: number;
}

interface Claim {
  readonly generation: number;
  readonly address: number;
  readonly port: number;
}

export class NatModel {
  readonly flows = new Map<string, Flow>();
  readonly claims = new Map<number, Claim>();

  join({ words }: TestRecord): void {
    const record = new NatRecord();
    record.load(Int32Array.from(words), 0);
    const { address, portAndProtocol, generation, rank, expires, claimGeneration } = record;
    const { externalAddress, externalPort } = record;
    // By address, then by port, as unsigned numbers.
    const protocol = [6, 17, 1].indexOf(portAndProtocol >>> 16);
    const place = ((externalAddress >>> 0) * 4 + protocol) * 65_536 + externalPort;
    const claim = this.claims.get(place);
    const larger =
      claim === undefined ||
      claimGeneration > claim.generation ||
      (claimGeneration === claim.generation &&
        (address >>> 0 > claim.address >>> 0 ||
          (address === claim.address && portAndProtocol >>> 0 > claim.port >>> 0)));
    if (larger) this.claims.set(place, { generation: claimGeneration, address, port: portAndProtocol });

    const key = `${address}:${portAndProtocol}`;
    const flow = this.flows.get(key);
    if (flow === undefined || generation > flow.generation || (generation === flow.generation && rank > flow.rank))
      this.flows.set(key, { generation, rank, place, expires });
    else if (generation === flow.generation && rank === flow.rank)
      this.flows.set(key, {
        generation,
        rank,
        place: Math.max(place, flow.place),
        expires: Math.max(expires, flow.expires),
      });
  }

  /** Valid bindings at `now`, one line each, sorted. */
  valid(now: number): string[] {
    const lines: string[] = [];
    for (const [key, { generation, rank, place, expires }] of this.flows) {
      const claim = this.claims.get(place);
      if (expires > now && claim !== undefined && `${claim.address}:${claim.port}` === key)
        lines.push(`${key} → ${place % 65_536} g${generation} r${rank} until ${expires}`);
    }
    return lines.sort();
  }
}

/** The bindings that have not expired, without the pauses between. */
export function entriesOf(object: NatBinding, now: number, filter?: (entry: NatEntry) => boolean): NatEntry[] {
  return [...object.entries(now, filter)].filter((entry) => entry !== null);
}

/** The same lines from the object. */
export function validEntries(object: NatBinding, now: number, swap: (port: number) => number): string[] {
  return entriesOf(object, now, (entry) => !entry.dead)
    .map(
      (e) =>
        `${e.internalAddress}:${swap(e.internalPort) | (e.protocol << 16)} → ${e.externalPort} g${e.generation} r${e.rank} until ${e.expires}`,
    )
    .sort();
}

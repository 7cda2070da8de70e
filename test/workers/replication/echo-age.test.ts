import { strict as assert } from 'node:assert';
import { AckBoard, PeerRecord } from '../../../shm/ack-board.js';
import { NOTE } from '../../support/ledger.js';
import { Network } from './network.js';

const HOUR_MS = 3_600_000;

describe('an echo of a datagram that left long ago', () => {
  for (const afterMs of [2 ** 32 / 1000 + 40_000, 3 * (2 ** 32 / 1000) + 10_000, 2 * HOUR_MS])
    it(`gives no round trip when it comes after ${(afterMs / HOUR_MS).toFixed(2)} hours, as one that waited in a socket`, () => {
      const network = new Network({ seed: 3, members: 2 });
      const [member, other] = network.members;
      network.append(0, 0, NOTE, 1);
      network.run(1000);
      const kept: Uint8Array[] = [];
      network.drop = (from, _to, bytes) => {
        if (from === 1) kept.push(bytes.slice());
        return from === 1;
      };
      network.append(0, 0, NOTE, 2);
      network.run(1000);
      other.up = false;
      assert.ok(kept.length > 0);
      const before = roundTrip(member.board);
      network.now += afterMs;
      for (const bytes of kept) member.receiver.receive(bytes, network.now, 0);
      assert.deepEqual(roundTrip(member.board), before);
    });
});

function roundTrip(board: SharedArrayBuffer): { latest: number; samples: number } {
  const peer = new PeerRecord();
  new AckBoard(board).readPeer(1, peer);
  return { latest: peer.latest, samples: peer.samples };
}

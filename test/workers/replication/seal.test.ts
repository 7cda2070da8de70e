import { strict as assert } from 'node:assert';
import { createDecipheriv } from 'node:crypto';
import fc from 'fast-check';
import { createMemberTable, MemberTableWriter, Role } from '../../../shm/members.js';
import { createSealBoard, SEAL_INCARNATIONS, SealBoard } from '../../../shm/seal-board.js';
import { type ClusterKey, deriveKey, newKey } from '../../../workers/replication/wire/cluster-key.js';
import { ReplayWindow, WINDOW } from '../../../workers/replication/wire/replay-window.js';
import { Opener, SEAL_BYTES, Sealer } from '../../../workers/replication/wire/seal.js';

const CLUSTER = 77;
const MESSAGE_BYTES = 1420;
const SENDER = 10;
const RECEIVER = 20;
const LIFE = 2 ** 50 + 12345;

class Pair {
  readonly sendBoard: SharedArrayBuffer;
  readonly receiveBoard: SharedArrayBuffer;
  readonly members = createMemberTable(2);
  sealer: Sealer;
  opener: Opener;
  now = 1000;
  private readonly clusterId: number;

  constructor(keys: readonly ClusterKey[], others: readonly ClusterKey[] = keys, clusterId = CLUSTER) {
    this.clusterId = clusterId;
    this.seat(SENDER);
    this.sendBoard = createSealBoard(2, keys);
    this.receiveBoard = createSealBoard(2, others);
    this.sealer = this.sealerOf(LIFE);
    this.opener = this.newOpener();
  }

  /** Gives slot 0 to a member. */
  seat(id: number): void {
    const entry = { role: Role.MEMBER, address: '127.0.0.1', port: 1, dead: 0 };
    new MemberTableWriter(this.members).write(1, [
      { ...entry, id, name: 'sender' },
      { ...entry, id: RECEIVER, name: 'receiver' },
    ]);
  }

  sealerOf(incarnation: number, sender = SENDER, board = this.sendBoard): Sealer {
    return new Sealer({ clusterId: this.clusterId, sender, incarnation, board });
  }

  newOpener(): Opener {
    return new Opener({
      clusterId: CLUSTER,
      self: RECEIVER,
      members: this.members,
      messageBytes: MESSAGE_BYTES,
      board: this.receiveBoard,
      now: this.now,
    });
  }

  open(datagram: Uint8Array): string | null {
    return this.opener.open(datagram, this.now);
  }
}

function seal(sealer: Sealer, message: Uint8Array): Uint8Array {
  const memory = new Uint8Array(message.length + SEAL_BYTES + 4);
  memory.set(message);
  return memory.subarray(0, sealer.seal(memory, message.length));
}

const MESSAGE = Uint8Array.from({ length: 200 }, (_, i) => i);
const KEY = newKey(1);
const NEXT = newKey(2);

/** A new board with the life's counter from the start, so that lives do not share one. */
const fresh = (): SharedArrayBuffer => createSealBoard(2, [KEY]);

describe('sealed datagram', () => {
  it('opens to the message that was sealed, of any size', () => {
    const pair = new Pair([KEY]);
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: MESSAGE_BYTES }), (message) => {
        const datagram = seal(pair.sealer, message);
        assert.equal(datagram.length, message.length + SEAL_BYTES);
        assert.equal(pair.open(datagram), null);
        assert.deepEqual(Buffer.from(pair.opener.message), Buffer.from(message));
      }),
      { numRuns: 200 },
    );
    assert.equal(new SealBoard(pair.receiveBoard).keyOf(0), KEY.id);
  });

  it('is as the format says', () => {
    const pair = new Pair([KEY]);
    const datagram = Buffer.from(seal(pair.sealer, MESSAGE));
    assert.equal(datagram[0], 2);
    assert.equal(datagram[1], KEY.id);
    assert.equal(datagram.readUInt16LE(2), SENDER);
    assert.equal(Number(datagram.readBigUInt64LE(4)), LIFE);
    const { salt } = new SealBoard(pair.sendBoard);
    assert.deepEqual(
      [0, 1, 2, 3].map((i) => datagram.readInt32LE(12 + 4 * i)),
      [...salt],
    );
    assert.equal(Number(datagram.readBigUInt64LE(28)), 1);
    const key = deriveKey(KEY, CLUSTER, 'datagram', datagram.subarray(2, 28));
    const nonce = Buffer.concat([Buffer.alloc(4), datagram.subarray(28, 36)]);
    const decipher = createDecipheriv('aes-256-gcm', key, nonce).setAAD(datagram.subarray(0, 36));
    decipher.setAuthTag(datagram.subarray(-16));
    assert.deepEqual(
      Buffer.concat([decipher.update(datagram.subarray(36, -16)), decipher.final()]),
      Buffer.from(MESSAGE),
    );
    assert.ok(!datagram.includes(Buffer.from(MESSAGE.subarray(0, 16))), 'nothing of the message is legible');
  });

  it('is refused when any bit of it is wrong, and changes nothing', () => {
    const pair = new Pair([KEY]);
    const first = seal(pair.sealer, MESSAGE);
    assert.equal(pair.open(first), null);
    const datagram = seal(pair.sealer, MESSAGE);
    const board = new SealBoard(pair.receiveBoard);
    const before = board.highest(0, 0);
    for (let bit = 0; bit < datagram.length * 8; bit++) {
      const damaged = Uint8Array.from(datagram);
      damaged[bit >> 3] ^= 1 << (bit & 7);
      pair.now += 10;
      assert.notEqual(pair.open(damaged), null, `bit ${bit}`);
      assert.equal(board.highest(0, 0), before);
    }
    assert.equal(pair.open(datagram), null);
  });

  it('is refused by its own reason', () => {
    const pair = new Pair([KEY]);
    const datagram = seal(pair.sealer, MESSAGE);
    const changed = (at: number, value: number): Uint8Array => {
      const copy = Uint8Array.from(datagram);
      copy[at] = value;
      return copy;
    };
    assert.equal(pair.open(new Uint8Array(0)), 'length');
    assert.equal(pair.open(datagram.subarray(0, SEAL_BYTES - 1)), 'length');
    assert.equal(pair.open(new Uint8Array(MESSAGE_BYTES + SEAL_BYTES + 1)), 'length');
    assert.equal(pair.open(Uint8Array.from(Buffer.from('CNST'))), 'unsealed');
    assert.equal(pair.open(changed(0, 1)), 'seal_version', 'the version before has no salt');
    assert.equal(pair.open(changed(0, 3)), 'seal_version');
    assert.equal(pair.open(changed(1, 9)), 'seal_key');
    assert.equal(pair.open(changed(2, RECEIVER)), 'own');
    assert.equal(pair.open(changed(2, 11)), 'sender');
    assert.equal(pair.open(changed(11, 0x80)), 'seal_header');
    assert.equal(pair.open(changed(35, 0x80)), 'seal_header');
    assert.equal(pair.open(changed(12, datagram[12] ^ 1)), 'seal_forged', 'another salt');
    assert.equal(pair.open(changed(40, datagram[40] ^ 1)), 'seal_forged');
    assert.equal(pair.open(datagram), null);
    assert.equal(pair.open(datagram), 'seal_replay');
  });

  it('is refused when sealed with another secret under the same id, or for another cluster', () => {
    assert.equal(new Pair([newKey(1)], [newKey(1)]).open(seal(new Pair([newKey(1)]).sealer, MESSAGE)), 'seal_forged');
    const other = new Pair([KEY], [KEY], CLUSTER + 1);
    assert.equal(new Pair([KEY]).open(seal(other.sealer, MESSAGE)), 'seal_forged');
    const another = new Pair([KEY]);
    const asIfOf = Uint8Array.from(seal(another.sealerOf(LIFE, 30), MESSAGE));
    asIfOf[2] = SENDER;
    assert.equal(another.open(asIfOf), 'seal_forged', 'one member’s datagram is not another’s');
  });
});

describe('key rotation', () => {
  it('loses nothing when every member takes each step before any takes the next', () => {
    const steps = [[KEY], [KEY, NEXT], [NEXT, KEY], [NEXT]];
    for (let step = 0; step + 1 < steps.length; step++)
      for (const [mine, theirs] of [
        [step, step + 1],
        [step + 1, step],
      ]) {
        const pair = new Pair(steps[mine], steps[theirs]);
        assert.equal(pair.open(seal(pair.sealer, MESSAGE)), null, `${mine} to ${theirs}`);
      }
  });

  it('takes effect with the next datagram, in the life and window there are', () => {
    const pair = new Pair([KEY]);
    const old = [seal(pair.sealer, MESSAGE), seal(pair.sealer, MESSAGE)];
    assert.equal(pair.open(old[0]), null);
    new SealBoard(pair.receiveBoard).writeKeys([KEY, NEXT]);
    new SealBoard(pair.sendBoard).writeKeys([NEXT, KEY]);
    const sent = seal(pair.sealer, MESSAGE);
    assert.equal(sent[1], NEXT.id);
    assert.equal(pair.open(sent), null);
    assert.equal(pair.open(old[1]), null, 'what was under way still opens');
    assert.equal(pair.open(old[0]), 'seal_replay', 'and is remembered across the change');
    new SealBoard(pair.receiveBoard).writeKeys([NEXT]);
    assert.equal(pair.open(seal(pair.sealer, MESSAGE)), null);
    assert.equal(pair.open(old[1]), 'seal_key');
    assert.equal(new SealBoard(pair.receiveBoard).keyOf(0), NEXT.id);
  });
});

describe('counter', () => {
  it('is never used twice, however often the send thread dies', () => {
    const pair = new Pair([KEY]);
    const used = new Set<bigint>();
    const salts = new Set<string>();
    for (let death = 0; death < 20; death++) {
      const sealer = pair.sealerOf(LIFE);
      for (let i = 0; i < 100 * death; i++) {
        const datagram = Buffer.from(seal(sealer, MESSAGE));
        const counter = datagram.readBigUInt64LE(28);
        salts.add(datagram.toString('hex', 12, 28));
        assert.ok(!used.has(counter));
        used.add(counter);
      }
    }
    assert.equal(salts.size, 1, 'all of one start');
  });
});

describe('nonces of starts whose clock is wrong', () => {
  /**
   * Incarnations as an instance has them that starts before NTP: few, and again and again the same.
   */
  const incarnations = fc.integer({ min: 1, max: 3 });
  const starts = fc.array(fc.tuple(incarnations, fc.integer({ min: 1, max: 4 })), { minLength: 2, maxLength: 20 });

  it('are never used twice with one key, and every start is heard', () => {
    fc.assert(
      fc.property(starts, (each) => {
        const pair = new Pair([KEY]);
        const used = new Set<string>();
        const streams = new Set<string>();
        let heard = 0;
        for (const [incarnation, datagrams] of each) {
          const sealer = pair.sealerOf(incarnation, SENDER, fresh());
          pair.now += 61_000;
          for (let i = 0; i < datagrams; i++) {
            const datagram = Buffer.from(seal(sealer, MESSAGE));
            const key = deriveKey(KEY, CLUSTER, 'datagram', datagram.subarray(2, 28)).toString('hex');
            const use = `${key} ${datagram.readBigUInt64LE(28)}`;
            assert.ok(!used.has(use), 'one key with one nonce twice');
            used.add(use);
            // The same message each time: two equal ciphertexts have one key stream.
            streams.add(datagram.toString('hex', 36, 36 + MESSAGE.length));
            if (pair.open(datagram) === null) heard++;
          }
        }
        assert.equal(streams.size, used.size);
        assert.equal(heard, used.size);
      }),
      { numRuns: 100 },
    );
  });

  it('do not depend on the incarnation: 5,000 starts with one incarnation have 5,000 salts', () => {
    const salts = new Set<string>();
    for (let start = 0; start < 5000; start++) salts.add(new SealBoard(fresh()).salt.join());
    assert.equal(salts.size, 5000);
  });

  it('leave replays refused, for each of the starts that had one incarnation', () => {
    const pair = new Pair([KEY]);
    const recorded = Array.from({ length: SEAL_INCARNATIONS }, () => seal(pair.sealerOf(7, SENDER, fresh()), MESSAGE));
    for (const datagram of recorded) assert.equal(pair.open(datagram), null);
    for (const datagram of recorded) assert.equal(pair.open(datagram), 'seal_replay');
    pair.opener = pair.newOpener();
    for (const datagram of recorded) assert.equal(pair.open(datagram), 'seal_replay', 'after the thread died');
  });
});

describe('replays', () => {
  it('window takes each number once, in any order, as a set of all would', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 3 * WINDOW })), fc.nat(WINDOW), (numbers, floor) => {
        const window = new ReplayWindow(floor);
        const taken = new Set<number>();
        let highest = floor;
        for (const number of numbers) {
          const expected = number > floor && number > highest - WINDOW && !taken.has(number);
          assert.equal(window.isFresh(number), expected, `${number}`);
          if (!expected) continue;
          window.take(number);
          taken.add(number);
          highest = Math.max(highest, number);
          assert.equal(window.highest, highest);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('window keeps no bit of what it has passed', () => {
    const window = new ReplayWindow(0);
    for (let n = 1; n <= 3 * WINDOW; n += 7) window.take(n);
    for (let n = 2 * WINDOW + 8; n <= 3 * WINDOW; n++) assert.equal(window.isFresh(n), (n - 1) % 7 !== 0, `${n}`);
  });

  it('are refused, whatever order they came in and though the receive thread died in between', () => {
    const pair = new Pair([KEY]);
    const sent = Array.from({ length: 500 }, () => seal(pair.sealer, MESSAGE));
    for (let i = 0; i < sent.length; i++) assert.equal(pair.open(sent[(i * 7) % sent.length]), null);
    for (const datagram of sent) assert.equal(pair.open(datagram), 'seal_replay');
    pair.opener = pair.newOpener();
    for (const datagram of sent) assert.equal(pair.open(datagram), 'seal_replay');
    assert.equal(pair.open(seal(pair.sealer, MESSAGE)), null);
  });

  it('of earlier lives are refused as long as these are remembered', () => {
    const pair = new Pair([KEY]);
    const recorded: Uint8Array[] = [];
    for (let life = 1; life <= SEAL_INCARNATIONS; life++) {
      recorded.push(seal(pair.sealerOf(LIFE + life, SENDER, fresh()), MESSAGE));
      assert.equal(pair.open(recorded[life - 1]), null);
    }
    for (const datagram of recorded) assert.equal(pair.open(datagram), 'seal_replay');
    const unheard = seal(pair.sealerOf(LIFE, SENDER, fresh()), MESSAGE);
    assert.equal(pair.open(unheard), 'seal_replay', 'earlier than all that are remembered');
    const latest = seal(pair.sealerOf(LIFE + 100, SENDER, fresh()), MESSAGE);
    assert.equal(pair.open(latest), null);
    assert.equal(pair.open(recorded[0]), 'seal_replay', 'the earliest was forgotten, and is earlier than all others');
    pair.now += 61_000;
    const setBack = pair.sealerOf(LIFE + 50, SENDER, fresh());
    assert.equal(pair.open(seal(setBack, MESSAGE)), null, 'a clock set back locks nobody out for ever');
    for (const datagram of [...recorded.slice(2), latest]) assert.equal(pair.open(datagram), 'seal_replay');
  });
});

describe('members', () => {
  it('that take another’s slot begin anew, whatever the clock of the other was; who is none is not opened', () => {
    const pair = new Pair([KEY]);
    for (let life = 0; life < SEAL_INCARNATIONS; life++)
      assert.equal(pair.open(seal(pair.sealerOf(LIFE + life, SENDER, fresh()), MESSAGE)), null);
    pair.seat(30);
    const datagram = seal(pair.sealerOf(1, 30), MESSAGE);
    assert.equal(pair.open(seal(pair.sealerOf(LIFE + 9, SENDER, fresh()), MESSAGE)), 'sender');
    assert.equal(pair.open(datagram), null);
    pair.opener = pair.newOpener();
    assert.equal(pair.open(datagram), 'seal_replay', 'also after the thread died');
  });
});

describe('flood', () => {
  it('of forged salts and incarnations stores nothing, in memory or on the board', () => {
    const pair = new Pair([KEY]);
    assert.equal(pair.open(seal(pair.sealer, MESSAGE)), null);
    const before = Buffer.from(pair.receiveBoard.slice(0));
    const forged = Buffer.from(seal(pair.sealer, MESSAGE));
    for (let i = 0; i < 2000; i++) {
      pair.now += 2;
      const at = i % 2 === 0 ? 4 : 12;
      forged.writeUInt32LE(i + 1, at);
      assert.equal(pair.open(forged), 'seal_forged');
    }
    assert.deepEqual(Buffer.from(pair.receiveBoard), before);
    assert.equal(pair.open(seal(pair.sealer, MESSAGE)), null);
  });

  it('of unknown incarnations and salts costs a bounded number of derivations, and known members are heard through it', () => {
    const pair = new Pair([KEY]);
    assert.equal(pair.open(seal(pair.sealer, MESSAGE)), null);
    const reasons = new Map<string | null, number>();
    for (let i = 0; i < 10_000; i++) {
      pair.now += 0.01;
      const forged = seal(pair.sealer, MESSAGE);
      const copy = Buffer.from(forged);
      copy.writeUInt32LE(i + 1, i % 2 === 0 ? 4 : 12);
      const reason = pair.open(copy);
      reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
      if (i % 100 === 0) assert.equal(pair.open(forged), null);
    }
    assert.equal(reasons.get(null), undefined);
    const derived = reasons.get('seal_forged') ?? 0;
    assert.ok(derived >= 64 && derived <= 64 + 100, `${derived} derivations in 100 ms`);
    assert.equal(reasons.get('seal_busy'), 10_000 - derived);
  });
});

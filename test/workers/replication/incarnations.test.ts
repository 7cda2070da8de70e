import { strict as assert } from 'node:assert';
import { SlotIncarnations } from '../../../shm/board-records.js';
import { Belief, Beliefs } from '../../../workers/replication/receiving/incarnations.js';
import { testSettings } from './network.js';

const [EARLIER, PRESENT, LATER] = [1000, 2000, 3000];
/** Messages of the other incarnation, one each keepalive interval. */
const MESSAGES = 20;

interface Case {
  readonly incarnation: number;
  /** The present incarnation was heard just now. */
  readonly isHeard?: boolean;
  readonly hasAnswered?: boolean;
  readonly answers?: boolean;
  readonly isJoining?: boolean;
}

/** At which message of another incarnation it is believed; null: never. */
function believedAt({
  incarnation,
  isHeard = false,
  hasAnswered = false,
  answers = false,
  isJoining = false,
}: Case): number | null {
  const settings = testSettings(2, 0);
  const beliefs = new Beliefs(settings);
  const incarnations = new SlotIncarnations();
  incarnations.current = PRESENT;
  for (let i = 0; i < MESSAGES; i++) {
    const now = 100_000 + i * settings.keepaliveMs;
    const heardAt = isHeard ? now : 0;
    const belief = beliefs.judge(1, incarnations, incarnation, heardAt, now, hasAnswered, answers, isJoining);
    if (belief === Belief.NEW) return i + 1;
    assert.equal(belief, Belief.NOT);
  }
  return null;
}

describe('another incarnation of a member', () => {
  it('does not end one that was heard, or that answered, by messages that do not answer us', () => {
    for (const incarnation of [EARLIER, LATER]) {
      assert.equal(believedAt({ incarnation, isHeard: true }), null);
      for (const isHeard of [false, true])
        for (const isJoining of [false, true])
          assert.equal(believedAt({ incarnation, isHeard, isJoining, hasAnswered: true }), null);
    }
  });

  it('does not end a silent one, known from a snapshot only, by recordings of an earlier one', () => {
    assert.equal(believedAt({ incarnation: EARLIER }), null);
    assert.equal(believedAt({ incarnation: EARLIER, answers: true }), 1);
  });

  it('replaces a silent one that may be a recording if it is later and heard several times', () =>
    assert.equal(believedAt({ incarnation: LATER }), 4));

  it('replaces one that may be a recording while we are joining, at once if it is later or answers us', () => {
    for (const isHeard of [false, true]) {
      assert.equal(believedAt({ incarnation: LATER, isHeard, isJoining: true }), 1);
      assert.equal(believedAt({ incarnation: EARLIER, isHeard, isJoining: true, answers: true }), 1);
    }
    assert.equal(believedAt({ incarnation: EARLIER, isHeard: true, isJoining: true }), null);
    assert.equal(believedAt({ incarnation: EARLIER, isJoining: true }), 4);
  });

  it('replaces any earlier one at once if it answers us', () => {
    for (const isHeard of [false, true])
      for (const hasAnswered of [false, true])
        assert.equal(believedAt({ incarnation: LATER, isHeard, hasAnswered, answers: true }), 1);
  });
});

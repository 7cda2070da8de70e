/** What a middlebox sees of the other members, read from real boards. */

import { strict as assert } from 'node:assert';
import { PeerFlag } from '../../../shm/ack-board.js';
import { Role } from '../../../shm/members.js';
import { ALONE, MemberState } from '../../../workers/api/members.js';
import { KEEPALIVE_MS, MemberBoards, SILENT_MS } from '../support/member-boards.js';

const [SELF, B, C] = [0, 1, 2];

function world() {
  const boards = new MemberBoards(SELF, 3, 2);
  const clock = { ms: 1000 };
  const members = boards.open([0, 1], () => clock.ms);
  const at = (ms: number) => {
    clock.ms = ms;
    members.refresh();
  };
  return { boards, members, at };
}

describe('the view of the other members', () => {
  it('says who is heard, and until when everything of them is here', () => {
    const { boards, members, at } = world();
    assert.deepEqual([members.self, members.slots, members.others], [SELF, 3, 2]);
    assert.deepEqual([members.isMember(SELF), members.isMember(B), members.name(C)], [false, true, 'c']);
    assert.equal(members.state(B), MemberState.UNHEARD);
    assert.equal(members.mostBehindMs(), Number.POSITIVE_INFINITY);
    assert.equal(members.lacking(0), 'b is not heard (ever), c is not heard (ever)');
    boards.hear(B, 1000);
    boards.hear(C, 1500);
    at(2000);
    assert.deepEqual([members.state(B), members.behindMs(B), members.behindMs(C)], [MemberState.CURRENT, 1000, 500]);
    assert.deepEqual([members.isComplete(1000), members.isComplete(999)], [true, false]);
    assert.equal(members.lacking(999), 'b is 1.0 s behind');
    at(1000 + SILENT_MS + 1);
    assert.deepEqual([members.state(B), members.state(C)], [MemberState.UNHEARD, MemberState.CURRENT]);
    assert.equal(members.isComplete(60_000), false);
    assert.equal(members.quietMs, 2.5 * KEEPALIVE_MS);
  });

  it('is as old as the last moment at which nothing was missing, in whichever object', () => {
    const { boards, members, at } = world();
    boards.hear(C, 1000);
    boards.hear(B, 1000);
    at(1000);
    boards.receive(1, B, 10, 12);
    for (const ms of [2000, 3000]) {
      boards.hear(B, ms);
      boards.hear(C, ms);
      at(ms);
    }
    assert.deepEqual([members.behindMs(B), members.behindMs(C), members.mostBehindMs()], [2000, 0, 2000]);
    boards.receive(1, B, 12, 12);
    at(3000);
    assert.equal(members.behindMs(B), 0);
  });

  it('says who has detached us, who joins, and leaves out who is dead or gone', () => {
    const { boards, members, at } = world();
    boards.hear(B, 1000);
    boards.hear(C, 1000, PeerFlag.JOINING);
    boards.receive(0, B, 5, 5, 1 << SELF);
    at(1000);
    assert.deepEqual([members.state(B), members.state(C)], [MemberState.DETACHED, MemberState.JOINING]);
    assert.equal(members.lacking(0), 'b has detached us and sends a backlog, c is joining');
    boards.receive(0, B, 5, 5, 1 << C);
    at(1000);
    assert.equal(members.state(B), MemberState.CURRENT, 'it has detached another one');
    boards.list(B, { dead: 2 });
    boards.list(C, { role: Role.LEFT });
    at(1000);
    assert.deepEqual([members.others, members.isComplete(0), members.lacking(0)], [0, true, '']);
    boards.list(B, { dead: 1 });
    at(1000);
    assert.equal(members.others, 1, 'a later incarnation counts');
  });

  it('is complete for an instance that is alone', () => {
    assert.deepEqual([ALONE.others, ALONE.isComplete(0), ALONE.mostBehindMs()], [0, true, 0]);
  });
});

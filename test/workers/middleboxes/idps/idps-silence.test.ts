/**
 * Silence is judged only where every member was heard and up to date, from the attempt to the
 * judgement.
 */

import { strict as assert } from 'node:assert';
import { PeerFlag } from '../../../../shm/ack-board.js';
import idps from '../../../../workers/middleboxes/idps/index.js';
import { exchange, IdpsSite, idleTogether, tcpAnswers } from '../../support/idps-site.js';

const SOURCES = 0;
const CLIENT = '10.0.0.6';

function two(options: Readonly<Record<string, unknown>> = {}): [IdpsSite, IdpsSite] {
  const sites = [0, 1].map((member) => new IdpsSite({ member, members: 2, options }));
  exchange(...sites);
  idleTogether(2000, ...sites);
  return [sites[0], sites[1]];
}

/** A client that opens a page of 15 hosts, answered by the other site. */
function browse(a: IdpsSite, b: IdpsSite): void {
  for (let n = 1; n <= 15; n++) {
    a.fromInside(`tcp ${CLIENT}:${41_000 + n} > 203.0.113.${n}:443 S`);
    b.fromOutside(`tcp 203.0.113.${n}:443 > ${CLIENT}:${41_000 + n} SA`);
  }
}

/** A scan that nothing answers. */
function silentScan(site: IdpsSite, from: string, ports = 30): void {
  for (let port = 1; port <= ports; port++) site.fromOutside(`tcp ${from}:40000 > 10.0.0.5:${port} S`);
}

const lines = (site: IdpsSite): string[] =>
  site.plane.logged
    .read()
    .map(({ level, text }) => `${level}: ${text}`)
    .filter((line) => line.includes('silence'));
const blocked = (...sites: IdpsSite[]) => sites.map((site) => site.blocks().map((row) => row['blocked']));

describe('IDPS: silence', () => {
  it('is not judged while the state channel is cut, nor is what was silent then afterwards', () => {
    for (const cutMs of [2000, 4000, 6000, 12_000, 30_000]) {
      const [a, b] = two();
      browse(a, b);
      for (const site of [a, b]) site.plane.idle(cutMs);
      assert.deepEqual(blocked(a, b), [[], []], `cut for ${cutMs} ms`);
      idleTogether(15_000, a, b);
      assert.deepEqual(blocked(a, b), [[], []], `healed after ${cutMs} ms`);
      silentScan(a, '192.0.2.66');
      idleTogether(8000, a, b);
      assert.deepEqual(blocked(a, b), [['192.0.2.66'], ['192.0.2.66']], 'and from then on it is judged');
    }
  });

  it('suspends nothing but itself: what is refused, and who reaches hundreds of ports, is blocked', () => {
    const [a] = two();
    a.plane.idle(10_000);
    for (let port = 1; port <= 30; port++) {
      a.fromOutside(`tcp 192.0.2.66:40000 > 10.0.0.5:${port} S`);
      a.fromInside(tcpAnswers.closed('192.0.2.66:40000', `10.0.0.5:${port}`));
    }
    silentScan(a, '192.0.2.67', 100);
    assert.deepEqual(blocked(a), [['192.0.2.66']]);
    silentScan(a, '192.0.2.68', 600);
    assert.deepEqual(blocked(a)[0].sort(), ['192.0.2.66', '192.0.2.68']);
  });

  it('is not judged while a member is behind, has detached us, or is joining, and says so', () => {
    const cases: [string, RegExp, (site: IdpsSite) => void][] = [
      ['behind', /b is \d+\.\d s behind/, (site) => site.others?.receive(SOURCES, 1, 10, 20)],
      ['detached', /b has detached us/, (site) => site.others?.receive(SOURCES, 1, 20, 20, 1)],
      ['joining', /b is joining/, (site) => site.others?.hear(1, site.plane.monotonicMs, PeerFlag.JOINING)],
      ['unheard', /b is \d+\.\d s behind/, () => {}],
    ];
    for (const [what, reason, make] of cases) {
      const [a, b] = two();
      lines(a);
      const pass = (ms: number) => {
        for (let passed = 0; passed < ms; passed += 500) {
          if (what !== 'unheard') a.others?.hear(1, a.plane.monotonicMs);
          make(a);
          a.plane.idle(500);
        }
      };
      pass(6000);
      silentScan(a, '192.0.2.66');
      pass(10_000);
      assert.deepEqual(blocked(a), [[]], what);
      const [line, ...others] = lines(a);
      assert.match(line, /^warn: idps: silence is not judged: .*; refusals are$/);
      assert.match(line, reason);
      assert.deepEqual(others, [], 'said once');
      assert.equal(a.plane.counts()['idps_silence_suspended'], 1);
      a.others?.receive(SOURCES, 1, 20, 20);
      idleTogether(6000, a, b);
      assert.match(lines(a)[0], /^info: idps: silence is judged again/);
    }
  });

  it('is judged again after suspend_max, with an alarm, so a member that is gone does not switch detection off', () => {
    const [a] = two({ suspend_max: 60 });
    a.plane.idle(30_000);
    silentScan(a, '192.0.2.66');
    a.plane.idle(20_000);
    assert.deepEqual(blocked(a), [[]]);
    lines(a);
    a.plane.idle(20_000);
    assert.deepEqual(blocked(a), [[]], 'what was silent while nobody could know is discarded');
    assert.match(lines(a)[0], /^error: idps: silence is judged again after suspend_max.*b is not heard/);
    assert.equal(a.plane.counts()['idps_silence_overdrawn'], 1);
    silentScan(a, '192.0.2.67');
    a.plane.idle(8000);
    assert.deepEqual(blocked(a), [['192.0.2.67']]);
  });

  it('is judged again although a member comes and goes', () => {
    const [a, b] = two({ suspend_max: 60 });
    let found = 0;
    for (let minute = 0; minute < 6 && found === 0; minute++) {
      idleTogether(3000, a, b);
      silentScan(a, `192.0.2.${70 + minute}`);
      a.plane.idle(27_000);
      found = blocked(a)[0].length;
    }
    assert.ok(found > 0);
  });

  it('waits for nobody that was declared dead, or that left the list', () => {
    for (const change of [{ dead: 5 }, { role: 2 as const }, { role: 3 as const }]) {
      const [a] = two();
      a.others?.list(1, change);
      a.plane.idle(2000);
      silentScan(a, '192.0.2.66');
      a.plane.idle(8000);
      assert.deepEqual(blocked(a), [['192.0.2.66']]);
    }
  });

  it('is said not to be judged by status, as long as it is not', () => {
    const [a, b] = two();
    const members = a.others?.open([SOURCES], () => a.plane.monotonicMs);
    const options = { scans: true, answer_seconds: 3, suspend_max: 60 };
    const watch = idps.watch?.({ options, members } as never);
    const conditions = (): readonly string[] | undefined => {
      watch?.look(a.now);
      return watch?.conditions();
    };
    assert.deepEqual(conditions(), []);
    a.plane.idle(10_000);
    assert.deepEqual(conditions(), ['silence is not judged (b is not heard (10.0 s)); refusals are']);
    for (let passed = 0; passed < 70; passed += 10) {
      a.plane.idle(10_000);
      conditions();
    }
    assert.match(
      conditions()?.[0] ?? '',
      /^silence is judged after suspend_max \(b is not heard .*may accuse honest hosts$/,
    );
    b.later(80);
    exchange(a, b);
    for (let passed = 0; passed < 40; passed += 2) {
      idleTogether(2000, a, b);
      conditions();
    }
    assert.deepEqual(conditions(), []);
  });
});

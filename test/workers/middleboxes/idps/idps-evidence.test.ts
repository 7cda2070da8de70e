/**
 * Every row of the table in docs/idps.md: who has to send what, and where it is seen; forged, it
 * does nothing; and at two sites.
 */

import { strict as assert } from 'node:assert';
import { errorAbout, frame } from '../../support/frames.js';
import { exchange, IdpsSite, INSIDE, idleTogether, OUTSIDE, tcpAnswers, unreachable } from '../../support/idps-site.js';

const X = '192.0.2.66';
const FROM = `${X}:40000`;
const HOST = '10.0.0.5';
const NOBODY = { attempted: 0, answered: 0, refused: 0, probed: 0 };

const two = (options: Readonly<Record<string, unknown>> = {}): [IdpsSite, IdpsSite] => {
  const sites: [IdpsSite, IdpsSite] = [
    new IdpsSite({ members: 2, options }),
    new IdpsSite({ member: 1, members: 2, options }),
  ];
  exchange(...sites);
  return sites;
};

/**
 * Makes the source one of which other sites know, with answers, so that it is far from any block.
 */
function known(site: IdpsSite, source = X): void {
  for (let n = 1; n <= 8; n++) {
    site.fromOutside(`tcp ${source}:50000 > 10.9.9.${n}:80 S`);
    site.fromInside(`tcp 10.9.9.${n}:80 > ${source}:50000 SA`);
  }
}

describe('IDPS: what is evidence', () => {
  it('attempted: by each flow, also of two that differ in the highest bits of two words', () => {
    for (const [host, port] of [
      ['10.0.0.133', 53],
      ['10.0.0.5', 181],
    ]) {
      const site = new IdpsSite();
      site.fromOutside(`udp ${FROM} > ${HOST}:53 len 8`, `udp 192.0.2.194:40000 > ${host}:${port} len 8`);
      assert.deepEqual([site.known(X).attempted, site.known('192.0.2.194').attempted], [1, 1], `${host}:${port}`);
    }
  });

  const attempts: [string, string, string][] = [
    ['a SYN', `tcp ${FROM} > ${HOST}:22 S`, `tcp ${HOST}:22 > ${FROM} S`],
    ['a UDP datagram to the lower port', `udp ${FROM} > ${HOST}:53 len 8`, `udp ${HOST}:53 > ${FROM} len 8`],
    ['a ping', `icmp ${X} > ${HOST} echo 1`, `icmp ${HOST} > ${X} echo 1`],
  ];
  for (const [what, genuine, other] of attempts)
    it(`attempted: X sends ${what}; of others it says nothing about X`, () => {
      for (const [packet, attempted] of [
        [other, 0],
        [genuine, 1],
      ] as const) {
        const site = new IdpsSite();
        site.pass({ port: packet === other ? INSIDE : OUTSIDE, frame: frame(packet) });
        assert.equal(site.known(X).attempted, attempted);
      }
    });

  const answers: [string, string, string][] = [
    [`tcp ${FROM} > ${HOST}:22 S`, `tcp ${HOST}:22 > ${FROM} SA`, `tcp ${HOST}:23 > ${FROM} SA`],
    [`udp ${FROM} > ${HOST}:53 len 8`, `udp ${HOST}:53 > ${FROM} len 8`, `udp ${HOST}:54 > ${FROM} len 8`],
    [`icmp ${X} > ${HOST} echo 1`, `icmp ${HOST} > ${X} reply 1`, `icmp 10.0.0.6 > ${X} reply 1`],
  ];
  for (const [attempt, answer, forged] of answers)
    it(`answered: ${answer} after ${attempt}, also at the other site; ${forged} leaves it unanswered`, () => {
      const alone = new IdpsSite();
      for (const isForged of [false, true]) {
        // At several sites, what answers nothing that this one saw may answer what another has
        // seen.
        const [a, b] = isForged ? [alone, alone] : two();
        // Silent but for these answers.
        for (let n = 0; n < 20; n++) a.fromOutside(attempt.replaceAll(HOST, `10.0.1.${n + 1}`));
        for (let n = 0; n < 20; n++)
          b.fromInside(
            (isForged ? forged : answer).replace(/10\.0\.0\.[56]/, isForged ? `10.0.2.${n + 1}` : `10.0.1.${n + 1}`),
          );
        if (a === b) a.plane.idle(8000);
        else idleTogether(8000, a, b);
        assert.deepEqual([...new Set([...a.signatures(), ...b.signatures()])], isForged ? [1002] : []);
      }
    });

  it('refused by a reset: X sent a SYN from this port that nobody has answered', () => {
    const site = new IdpsSite();
    site.fromOutside(`tcp ${FROM} > ${HOST}:22 S`, `tcp ${FROM} > ${HOST}:23 S`);
    site.fromInside(
      `tcp ${HOST}:22 > ${X}:40001 RA seq 0`,
      `tcp ${HOST}:24 > ${FROM} R`,
      `tcp 10.0.0.6:22 > ${FROM} R`,
    );
    site.fromInside(`tcp ${HOST}:23 > ${FROM} SA`, `tcp ${HOST}:23 > ${FROM} R`, `tcp ${HOST}:23 > ${FROM} RA`);
    assert.deepEqual(site.known(X), { attempted: 2, answered: 1, refused: 0, probed: 0 });
    site.fromInside(`tcp ${HOST}:22 > ${FROM} RA seq 0`);
    assert.deepEqual(site.known(X), { attempted: 2, answered: 1, refused: 1, probed: 0 });
  });

  it('refused by a reset at another site: the attempt is known there, before the reset or soon after', () => {
    const [a, b] = two();
    let probes = 0;
    const scan = (isLate: boolean) => {
      for (let port = 1; port <= 40 && b.blocks().length === 0; port++, probes++) {
        a.fromOutside(`tcp ${FROM} > ${HOST}:${port} S`);
        if (!isLate) exchange(a, b);
        b.fromInside(tcpAnswers.closed(FROM, `${HOST}:${port}`));
        idleTogether(100, a, b);
      }
    };
    scan(false);
    assert.deepEqual([...a.signatures(), ...b.signatures()], [1001]);
    assert.ok(probes <= 24, `${probes} probes`);
    const late = two();
    [probes] = [0];
    for (let port = 1; port <= 40 && late[1].blocks().length === 0; port++, probes++) {
      late[0].fromOutside(`tcp ${FROM} > ${HOST}:${port} S`);
      late[1].fromInside(tcpAnswers.closed(FROM, `${HOST}:${port}`));
      idleTogether(100, ...late);
    }
    assert.deepEqual([...late[0].signatures(), ...late[1].signatures()], [1001]);
    assert.ok(probes <= 28, `${probes} probes`);
    // Resets alone, of what nobody tried, even of a source that both know.
    const [c, d] = two();
    known(c);
    exchange(c, d);
    for (let port = 1; port <= 2000; port++) d.fromInside(`tcp ${HOST}:${port} > ${FROM} RA seq 0`);
    idleTogether(8000, c, d);
    assert.equal(d.known(X).refused, 0);
    assert.deepEqual(d.blocks(), []);
  });

  it('refused by an ICMP error: it quotes what X sent, and what nobody has answered', () => {
    const site = new IdpsSite();
    const probe = `udp ${FROM} > ${HOST}:53 len 8`;
    site.fromOutside(probe, `tcp ${FROM} > ${HOST}:22 S`, `icmp ${X} > ${HOST} echo 1`);
    for (const other of [
      `udp ${FROM} > ${HOST}:54 len 8`,
      `tcp ${X}:40001 > ${HOST}:22 S`,
      `icmp ${X} > 10.0.0.6 echo 1`,
    ])
      site.pass({ port: INSIDE, frame: unreachable(HOST, frame(other)) });
    assert.equal(site.known(X).refused, 0);
    site.fromInside(`tcp ${HOST}:22 > ${FROM} SA`);
    site.pass({ port: INSIDE, frame: unreachable(HOST, frame(`tcp ${FROM} > ${HOST}:22 S`)) });
    assert.equal(site.known(X).refused, 0, 'it was answered');
    site.pass({ port: INSIDE, frame: unreachable(HOST, frame(probe)) });
    site.pass({ port: INSIDE, frame: errorAbout(`icmp ${HOST} > ${X} type 3`, `icmp ${X} > ${HOST} echo 1`) });
    assert.equal(site.known(X).refused, 2);
    // At another site, of a source that looks suspicious.
    const [a, b] = two();
    for (let port = 1; port <= 40 && b.blocks().length === 0; port++) {
      const scan = frame(`udp ${FROM} > ${HOST}:${port} len 8`);
      a.pass({ port: OUTSIDE, frame: scan });
      b.pass({ port: INSIDE, frame: unreachable(HOST, scan) });
      idleTogether(100, a, b);
    }
    assert.deepEqual([...a.signatures(), ...b.signatures()], [1001]);
  });

  for (const flags of ['', 'F', 'FPU', 'SF'])
    it(`refused at once: X sends ${flags || 'no flags'}; sent to X it says nothing about X`, () => {
      const site = new IdpsSite();
      site.fromInside(`tcp ${HOST}:22 > ${FROM} ${flags}`);
      assert.deepEqual(site.known(X), NOBODY);
      site.fromOutside(`tcp ${FROM} > ${HOST}:22 ${flags}`);
      assert.deepEqual(site.known(X), { ...NOBODY, attempted: 1, refused: 1 });
    });

  it('probed: X sends a bare ACK where nobody knows a connection, and the host resets it and sends nothing else', () => {
    const site = new IdpsSite();
    const bare = (port: number) => `tcp ${FROM} > ${HOST}:${port} A`;
    const reset = (port: number) => `tcp ${HOST}:${port} > ${FROM} R`;
    site.fromInside(reset(1)); // of nothing
    site.fromOutside(`tcp ${FROM} > ${HOST}:2 A len 9`);
    site.fromInside(reset(2)); // data is no probe
    site.fromOutside(`tcp ${FROM} > ${HOST}:3 S`);
    site.fromInside(`tcp ${HOST}:3 > ${FROM} SA`);
    site.fromOutside(bare(3));
    site.fromInside(reset(3)); // a connection that was begun
    site.fromOutside(bare(4));
    site.fromInside(`tcp ${HOST}:4 > ${FROM} PA len 10`, reset(4)); // the host took part
    assert.equal(site.known(X).probed, 0);
    site.fromOutside(bare(5));
    site.fromInside(reset(5));
    assert.equal(site.known(X).probed, 1);
  });

  it('completed, against a SYN flood: the server accepts, and the client knows its number, or the server goes on', () => {
    const flooded = (between: (site: IdpsSite, client: string) => void): number[] => {
      const site = new IdpsSite({ options: { syn_flood_rate: 200, scans: false } });
      site.plane.idle(2000);
      for (let n = 0; n < 600; n++) {
        const client = `198.51.${100 + (n % 3)}.${1 + (n % 250)}:${1024 + n}`;
        site.fromOutside(`tcp ${client} > ${HOST}:80 S`);
        between(site, client);
      }
      site.plane.idle(1500);
      return site.signatures();
    };
    const accepts = (site: IdpsSite, client: string) => site.fromInside(`tcp ${HOST}:80 > ${client} SA seq 777000`);
    assert.deepEqual(
      flooded((site, client) => {
        accepts(site, client);
        site.fromOutside(`tcp ${client} > ${HOST}:80 A ack 777001`);
      }),
      [],
    );
    assert.deepEqual(
      flooded((site, client) => {
        accepts(site, client);
        site.fromInside(`tcp ${HOST}:80 > ${client} PA seq 777001 len 40`);
      }),
      [],
    );
    for (const flags of ['F', 'FA', 'R', 'RA', 'A', 'PA'])
      for (const isAccepted of [false, true])
        assert.deepEqual(
          flooded((site, client) => {
            if (isAccepted) accepts(site, client);
            site.fromOutside(`tcp ${client} > ${HOST}:80 ${flags} ack 123456789`);
          }),
          [2002],
          `${flags}, which a forger can send`,
        );
  });

  it('completed at another site than the SYN was seen at', () => {
    const [a, b] = two({ syn_flood_rate: 200, scans: false });
    for (let second = 0; second < 4; second++) {
      for (let n = 0; n < 300; n++) {
        const client = `198.51.${100 + second}.${1 + (n % 250)}:${1024 + n}`;
        a.fromOutside(`tcp ${client} > ${HOST}:80 S`);
        b.fromInside(`tcp ${HOST}:80 > ${client} SA seq 5000`, `tcp ${HOST}:80 > ${client} PA seq 5001 len 10`);
        if (n % 60 === 0) exchange(a, b);
      }
      idleTogether(1000, a, b);
    }
    assert.deepEqual([...a.signatures(), ...b.signatures()], []);
  });
});

describe('IDPS: honest hosts', () => {
  it('a laptop that wakes up: resets for its old connections, asked for or not', () => {
    for (const asks of ['', 'A', 'PA len 20', 'FA'])
      for (const reset of ['R', 'RA', 'RA seq 0']) {
        const site = new IdpsSite();
        for (let n = 1; n <= 60; n++) {
          const [me, server] = [`${HOST}:${50_000 + n}`, `198.51.100.${n}:${n % 3 === 0 ? 5228 : 443}`];
          if (asks !== '') site.fromInside(`tcp ${me} > ${server} ${asks}`);
          site.fromOutside(`tcp ${server} > ${me} ${reset}`);
        }
        site.plane.idle(8000);
        assert.deepEqual(site.blocks(), [], `${asks} ${reset}`);
      }
  });

  for (const port of [8080, 50_051])
    it(`a server on port ${port}: 200 good connections that its clients reset, from lower ports too`, () => {
      const site = new IdpsSite();
      for (let n = 0; n < 200; n++) {
        const client = `198.51.100.${1 + (n % 2)}:${20_000 + n * 97}`;
        site.fromOutside(`tcp ${client} > ${HOST}:${port} S`);
        site.fromInside(`tcp ${HOST}:${port} > ${client} SA`);
        site.fromOutside(
          `tcp ${client} > ${HOST}:${port} A ack 1001`,
          `tcp ${client} > ${HOST}:${port} PA ack 1001 len 30`,
        );
        site.fromInside(`tcp ${HOST}:${port} > ${client} A seq 1001`);
        site.fromOutside(`tcp ${client} > ${HOST}:${port} R`);
        site.fromInside(`tcp ${HOST}:${port} > ${client} A seq 1001`);
        site.fromOutside(`tcp ${client} > ${HOST}:${port} R`);
      }
      site.plane.idle(8000);
      assert.deepEqual(site.blocks(), []);
    });

  for (const [server, port] of [
    [123, () => 123],
    [51_820, (n: number) => 20_000 + n],
    [53, (n: number) => 1 + n],
  ] as const)
    it(`a UDP server on port ${server}: clients whose ports are not above it, each asks once, also at another site`, () => {
      for (const sites of [[new IdpsSite()], two()]) {
        for (let n = 0; n < 40; n++) {
          const client = `${X.slice(0, -2)}${1 + n}:${port(n)}`;
          sites[0].fromOutside(`udp ${client} > ${HOST}:${server} len 48`);
          sites[sites.length - 1].fromInside(`udp ${HOST}:${server} > ${client} len 48`);
        }
        if (sites.length === 1) sites[0].plane.idle(8000);
        else idleTogether(8000, ...sites);
        for (const site of sites) assert.deepEqual(site.blocks(), []);
      }
    });

  for (const data of [true, false])
    it(`a server that ${data ? 'acknowledges data on' : 'closes'} idle connections, which their client resets`, () => {
      const site = new IdpsSite();
      const server = `${HOST}:443`;
      const clients = Array.from({ length: 40 }, (_, n) => `${X}:${20_000 + n}`);
      for (const client of clients) {
        site.fromOutside(`tcp ${client} > ${server} S`);
        site.fromInside(`tcp ${server} > ${client} SA seq 500`);
        site.fromOutside(`tcp ${client} > ${server} A ack 501`, `tcp ${client} > ${server} PA ack 501 len 20`);
        site.fromInside(`tcp ${server} > ${client} PA seq 501 len 100`);
      }
      site.plane.idle(75_000, 500);
      for (const client of clients) {
        if (data) site.fromOutside(`tcp ${client} > ${server} PA ack 601 len 20`);
        site.fromInside(`tcp ${server} > ${client} ${data ? 'A' : 'FA'} seq 601`);
        site.fromOutside(`tcp ${client} > ${server} R`);
      }
      site.plane.idle(8000);
      assert.deepEqual({ ...site.known(HOST), blocks: site.blocks() }, { ...NOBODY, blocks: [] });
    });

  it('flows that differ in the last bytes of address and port alone do not hide each other', () => {
    // Whether they do depends on secrets that each site draws.
    for (let run = 0; run < 8; run++) {
      const site = new IdpsSite({ options: { dry_run: true } });
      for (let n = 0; n < 1000; n++)
        site.fromOutside(`udp ${FROM} > 10.0.${n >> 8}.${n & 255}:${256 * (1 + (n >> 8)) + (n & 255)} len 8`);
      const { attempted } = site.known(X);
      assert.ok(attempted > 700, `${attempted} of 1000`);
    }
  });

  it('one-way traffic, where replies take a way that no site sees', () => {
    for (const replies of ['seen', 'bypass']) {
      const site = new IdpsSite({ options: { replies } });
      for (let n = 1; n <= 20; n++) {
        const [me, to] = [`${HOST}:${40_000 + n}`, `198.51.100.${n}`];
        for (let k = 0; k < 3; k++) site.fromInside(`udp ${me} > ${to}:514 len 90`);
        site.fromInside(
          `tcp ${me} > ${to}:443 S`,
          `tcp ${me} > ${to}:443 A ack 1`,
          `tcp ${me} > ${to}:443 PA ack 1 len 99`,
        );
      }
      site.plane.idle(8000);
      assert.equal(site.blocks().length, replies === 'seen' ? 1 : 0, replies);
    }
  });

  it('a scan that acknowledges blindly is found where replies are seen, and one that is silent in either case', () => {
    for (const replies of ['seen', 'bypass']) {
      const site = new IdpsSite({ options: { replies } });
      for (let port = 1; port <= 30; port++) {
        site.fromOutside(`tcp ${FROM} > ${HOST}:${port} S`);
        if (replies === 'seen') site.fromOutside(`tcp ${FROM} > ${HOST}:${port} A ack 1`);
      }
      site.plane.idle(8000);
      assert.deepEqual(site.signatures(), [1001], replies);
    }
  });
});

describe('IDPS: links of a wire', () => {
  it('knows a source, and blocks it, on the link on which it scanned, and says which', () => {
    for (const [tags, vlan] of [
      ['10', [10]],
      ['7.10', [7, 10]],
    ] as const) {
      const [a, b] = two();
      const on = (site: IdpsSite, port: number, tag: string) =>
        site.fromOutside(`tcp ${FROM} > ${HOST}:${port} S${tag}`);
      for (let port = 1; port <= 40; port++)
        if (on(a, port, ` vlan ${tags}`) > 0)
          a.fromInside(`${tcpAnswers.closed(FROM, `${HOST}:${port}`)} vlan ${tags}`);
      exchange(a, b);
      assert.deepEqual(
        a.alerts().map((alert) => [alert.src_ip, (alert as unknown as { vlan: number[] }).vlan]),
        [[X, [...vlan]]],
      );
      const name = `${X} vlan ${tags}`;
      assert.deepEqual(
        b.blocks().map(({ blocked }) => blocked),
        [name],
      );
      assert.deepEqual([on(b, 99, ` vlan ${tags}`), on(b, 99, ''), on(b, 99, ' vlan 11')], [0, 1, 1]);
      // Another link's packets answer nothing.
      b.unblock(name);
      exchange(a, b);
      assert.equal(on(a, 100, ` vlan ${tags}`), 1);
      assert.throws(() => b.unblock(`${X} vlan 5000`), /"5000" is not a VLAN id such as 10, or two such as 10\.20/);
    }
  });

  it('takes a reset on another link for no answer', () => {
    const site = new IdpsSite();
    for (let port = 1; port <= 30; port++) {
      site.fromOutside(`tcp ${FROM} > ${HOST}:${port} S vlan 10`);
      site.fromInside(
        `${tcpAnswers.closed(FROM, `${HOST}:${port}`)} vlan 20`,
        tcpAnswers.closed(FROM, `${HOST}:${port}`),
      );
    }
    assert.deepEqual(site.blocks(), []);
  });
});

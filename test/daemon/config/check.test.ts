import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { RIGHT } from '../../conf/fake-nat.js';

const PROGRAM = fileURLToPath(new URL('../../../daemon/constellationd.js', import.meta.url));

describe('constellationd --check', () => {
  let folder = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-check-'));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  function check(text: string) {
    const file = join(folder, 'site.yaml');
    writeFileSync(file, text);
    const { status, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, '--check', '-c', file], {
      encoding: 'utf8',
    });
    return { status, stdout: stdout.replaceAll(folder, ''), stderr: stderr.replaceAll(folder, '') };
  }

  it('says ok', () => {
    assert.deepEqual(check(RIGHT), { status: 0, stdout: '/site.yaml: ok\n', stderr: '' });
  });

  it('prints every error and exits 78', () => {
    assert.deepEqual(check(RIGHT.replace('self: b', 'self: c').replace('out0', 'in0')), {
      status: 78,
      stdout: '',
      stderr: [
        '/site.yaml:3:9: cluster.self: no member is called c; did you mean "b"?',
        '/site.yaml:9:25: ports.outside.interface: interface in0 is already taken by port inside',
        '',
      ].join('\n'),
    });
  });

  it('checks rules, in their file and in the configuration', () => {
    const firewall = (rules: string) =>
      RIGHT.replace(/middleboxes:\n.*\n$/, `middleboxes:\n  - firewall:\n      rules: ${rules}\n`);
    writeFileSync(join(folder, 'site.rules'), 'iif insde accept\ntcp dport 80 acept\n');
    assert.deepEqual(check(firewall('site.rules')), {
      status: 78,
      stdout: '',
      stderr: [
        '/site.rules:1:5: there is no port "insde"; there are "inside", "outside"; did you mean "inside"?',
        '/site.rules:2:14: "acept" is nothing that a rule says; did you mean "accept"?',
        '',
      ].join('\n'),
    });
    // Right, and not meant so.
    writeFileSync(join(folder, 'site.rules'), 'define a = 22\niif inside accept\niif inside tcp dport 22 drop\n');
    assert.deepEqual(check(firewall('site.rules')), {
      status: 0,
      stdout: [
        'note: /site.rules:1:8: "a" is not used',
        'note: /site.rules:3:1: no packet comes to this rule: line 2 matches all of its packets',
        '/site.yaml: ok',
        '',
      ].join('\n'),
      stderr: '',
    });
    const { stderr } = check(firewall('|\n        iif inside accept\n        tcp dport 80 acept'));
    assert.match(stderr, /^\/site\.yaml:(\d+):22: middleboxes\[0\]\.firewall\.rules: "acept" is nothing/);
    assert.match(check(firewall('other.rules')).stderr, /rules: there is no file .*\/other\.rules; several lines/);
    const held = check(firewall('|\n        iif inside tcp dport 80 hold 2 accept\n        iif inside hold 1 accept'));
    assert.match(held.stderr, /^\/site\.yaml:\d+:33: .*rules: hold 2: there are 1 other members, every first packet/);
    assert.equal(held.stderr.trim().split('\n').length, 1);
    assert.equal(check(firewall('|\n        iif inside accept')).status, 0);
  });

  it('checks that the programs of hooks can be run, and that there are as many members as packets wait for', () => {
    writeFileSync(join(folder, 'plain'), '');
    const hooks = `hooks:
  on_ready: [/bin/true, x]
  on_drain: [${join(folder, 'plain')}]
  on_member_lost: [no-such-program]
`;
    assert.deepEqual(
      check(
        `${RIGHT.replace('[203.0.113.1]', '[203.0.113.1], hold_members: 2').replace('id: demo', 'id: demo\n  slots: 8')}${hooks}`,
      ),
      {
        status: 78,
        stdout: '',
        stderr: [
          '/site.yaml:12:85: middleboxes[0].nat.hold_members: 2 other members, and 1 in cluster.members: every first packet would wait in vain',
          '/site.yaml:15:14: hooks.on_drain[0]: /plain may not be run by this user',
          '/site.yaml:16:20: hooks.on_member_lost[0]: no program no-such-program in the PATH of this user; write the whole path',
          '',
        ].join('\n'),
      },
    );
  });

  it('checks what the NAT itself asks of its options', () => {
    const { status, stderr } = check(
      RIGHT.replace('[203.0.113.1]', '[203.0.113.1], first_port: 2000, last_port: 1000'),
    );
    assert.equal(status, 78);
    assert.match(stderr, /^\/site\.yaml:11:5: middleboxes\[0\]\.nat: port range 2000/);
  });
});

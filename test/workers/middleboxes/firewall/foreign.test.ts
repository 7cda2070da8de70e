/** Errors about rules show nothing of a file that is not one of rules. */

import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { suggestion } from '../../../../conf/suggest.js';
import { validate } from '../../../../conf/validate.js';
import type { RulesCompiler } from '../../../../workers/api/rules.js';
import { compileRules } from '../../../../workers/middleboxes/firewall/compile.js';
import { compileAllowList } from '../../../../workers/middleboxes/idps/allow-list.js';
import { keyLine, newKey } from '../../../../workers/replication/wire/cluster-key.js';

const PORTS = ['inside', 'outside'];
/** So many characters of a secret that follow each other are not shown. */
const SHOWN = 6;

/** All that an operator is shown. */
function messages(compile: RulesCompiler, text: string): string {
  const { problems = [] } = compile(text, { ports: PORTS });
  assert.notEqual(problems.length, 0, 'nothing is wrong');
  return problems
    .map(({ message, word, candidates }) => `${message}${word === undefined ? '' : suggestion(word, candidates ?? [])}`)
    .join('\n');
}

function assertHidden(secret: string, shown: string): void {
  for (let at = 0; at + SHOWN <= secret.length; at++)
    assert.ok(
      !shown.includes(secret.slice(at, at + SHOWN)),
      `${JSON.stringify(secret.slice(at, at + SHOWN))}: ${shown}`,
    );
}

const bytes = fc.uint8Array({ minLength: 16, maxLength: 64 });
const encoded = fc
  .tuple(bytes, fc.constantFrom('hex', 'base64', 'base64url'))
  .map(([secret, as]) => Buffer.from(secret).toString(as as BufferEncoding));
const FILES: readonly ((secret: string) => string)[] = [
  (secret) => secret,
  (secret) => `${secret}\n`,
  (secret) => `7:${secret}\n6:${secret}\n`,
  (secret) => `-----BEGIN PRIVATE KEY-----\n${secret}\n-----END PRIVATE KEY-----\n`,
  (secret) => `[Interface]\nPrivateKey = ${secret}\nAddress = 10.0.0.1/24\n`,
  (secret) => `database:\n  user: root\n  password: ${secret}\n`,
  (secret) => `{ "token": "${secret}" }\n`,
  (secret) => `export TOKEN="${secret}"\nexport USER=root\n`,
  (secret) => `root:$6$${secret}:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n`,
  (secret) => `machine example.org login root password ${secret}\n`,
];

describe('a path in the configuration that leads to another file', () => {
  const file = fc.tuple(encoded, fc.constantFrom(...FILES));

  it('firewall rules: shows nothing of it', () => {
    fc.assert(fc.property(file, ([secret, of]) => assertHidden(secret, messages(compileRules, of(secret)))));
  });

  it('allow list of the IDPS: shows nothing of it', () => {
    fc.assert(fc.property(file, ([secret, of]) => assertHidden(secret, messages(compileAllowList, of(secret)))));
  });

  it('the configuration itself: shows nothing of a key file', () => {
    for (let id = 1; id < 20; id++) {
      const line = keyLine(newKey(id));
      for (const compile of [compileRules, compileAllowList]) assertHidden(line, messages(compile, line));
      const { problems = [] } = validate(line, [], { cores: [0], folder: '/' });
      assert.deepEqual(
        problems.map(({ message }) => message),
        ['expected a mapping with the configuration; this is a text'],
      );
    }
  });

  it('says what to do', () => {
    assert.equal(
      messages(compileRules, 'q83vEjRWeJCrze8SNFZ4\n'),
      'this does not look like rules: 0 of 1 statements begin as a rule does. Its content is not shown; check the path, or the first word of each line',
    );
  });

  it('is told from rules with mistakes, also with one in the first word', () => {
    for (const [text, expected] of [
      ['acept', /^"acept" is nothing .* did you mean "accept"\?$/],
      ['tpc dport 22 accept', /^"tpc" is nothing .* did you mean "tcp"\?$/],
      ['plicy drop\nip saddr 10.0.0.300 accept', /10\.0\.0\.300/],
      ['table inet filter {\n chain input {\n }\n}', /^"table" is not possible/],
      ['define a = { 10.0.0.1,\n x }\nnonsense\nip saddr $a drop', /"nonsense"/],
    ] as const)
      assert.match(messages(compileRules, text), expected, text);
  });
});

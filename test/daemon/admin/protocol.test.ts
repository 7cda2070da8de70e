import { strict as assert } from 'node:assert';
import fc from 'fast-check';
import { render, table } from '../../../daemon/admin/answer.js';
import { parseLine } from '../../../daemon/admin/command.js';
import { COMMANDS } from '../../../daemon/admin/commands/index.js';
import { errorLine, escapeLine, okLine, readLine } from '../../../daemon/admin/protocol.js';
import { UsageError } from '../../../daemon/base/command-errors.js';

describe('admin protocol', () => {
  it('tells content from the end of an answer, whatever the content', () => {
    const start = fc.constantFrom('', ' ', '  ', 'OK', 'ERR ', 'ERR x y', 'OKAY');
    fc.assert(
      fc.property(start, fc.string(), (begin, rest) => {
        const line = begin + rest.replaceAll('\n', '');
        assert.deepEqual(readLine(escapeLine(line)), { kind: 'line', text: line });
      }),
    );
    assert.deepEqual(readLine('OK'), { kind: 'ok', state: null });
    assert.deepEqual(readLine(okLine('degraded').trimEnd()), { kind: 'ok', state: 'degraded' });
    assert.deepEqual(readLine(errorLine('failed', 'so\n  it is').trimEnd()), {
      kind: 'error',
      code: 'failed',
      message: 'so it is',
    });
  });

  it('finds commands, their words and options', () => {
    const parsed = parseLine('  show   flows proto=tcp -o json port=80\r', COMMANDS);
    assert.equal(parsed.command.name, 'show flows');
    assert.deepEqual(parsed.words, ['proto=tcp', 'port=80']);
    assert.equal(parsed.format, 'json');
    for (const form of ['-ojson', '--output=json', '--output json']) {
      assert.equal(parseLine(`status ${form}`, COMMANDS).format, 'json');
    }
    assert.equal(parseLine('show peers --help', COMMANDS).command.name, 'help');
  });

  it('says what could have been meant', () => {
    for (const [line, message] of [
      ['stats', 'unknown command "stats"; did you mean "status"?'],
      ['shwo peers', 'unknown command "shwo"; did you mean "show"?'],
      [
        'show',
        'show what? One of: show peers, show rejects, show objects, show lag, show flows, show rules, show threads, show counters, show alerts, show blocks, show records',
      ],
      ['show peer', 'unknown command "show peer"; did you mean "show peers"?'],
      ['frobnicate', 'unknown command "frobnicate"; try help'],
      ['status -x', 'unknown option -x; known: -o json, -o text, --help'],
      ['status -o xml', '-o needs json or text, not xml'],
      ['status -o', '-o needs json or text'],
      ['\u0000\u0001\u001b[31m', 'unknown command "???[31m"; try help'],
    ]) {
      assert.throws(
        () => parseLine(line, COMMANDS),
        (error) => {
          assert.ok(error instanceof UsageError);
          assert.equal(error.message, message);
          return true;
        },
      );
    }
  });

  it('answers any line with a command or a usage error on one line of ASCII', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 300 }), (line) => {
        try {
          parseLine(line, COMMANDS);
        } catch (error) {
          assert.ok(error instanceof UsageError);
          assert.match(error.message, /^[\x20-\x7e]+$/);
        }
      }),
    );
  });

  it('aligns columns, and numbers to the right', () => {
    const columns = [
      { title: 'NAME', cell: (row: { name: string }) => row.name },
      { title: 'N', cell: (row: { n: number }) => row.n, right: true },
    ] as never[];
    const rows = [{ name: 'a', n: 1 }, null, { name: 'long one', n: 1000 }, { name: '', n: 0 }];
    assert.deepEqual(
      [...render(table(columns, rows), 'text')],
      [null, 'NAME         N', 'a            1', 'long one  1000', '-            0'],
    );
    assert.deepEqual([...render(table(columns, rows.slice(0, 1)), 'json')], ['{"name":"a","n":1}']);
    assert.deepEqual([...render(table(columns, []), 'text')], ['NAME  N']);
  });
});

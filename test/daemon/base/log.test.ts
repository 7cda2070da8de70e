import { strict as assert } from 'node:assert';
import { closeSync, fstatSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, formOf, type LogForm, type LogLevel } from '../../../daemon/base/log.js';

function logged(form: LogForm, level: LogLevel, write: (log: ReturnType<typeof createLog>) => void): string[] {
  const lines: string[] = [];
  write(createLog(level, form, { write: (line) => void lines.push(line) }));
  return lines;
}

describe('log', () => {
  it('writes JSON for programs', () => {
    const [line, ...more] = logged('json', 'info', (log) => {
      log.info('hello');
      log.debug('left out');
    });
    assert.deepEqual(more, []);
    const { level, msg, time } = JSON.parse(line);
    assert.deepEqual([level, msg], ['info', 'hello']);
    assert.ok(!Number.isNaN(Date.parse(time)));
  });

  it('writes one line for people, whatever is in the message', () => {
    const lines = logged('text', 'trace', (log) => {
      log.warn('careful');
      log.error(new Error('broken\nin two'), 'it failed');
      log.info({ port: 'inside', n: 2 }, 'and \u001b[31mmore');
    });
    assert.match(lines[0], /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} warn {2}careful\n$/);
    assert.match(lines[1], / error it failed: broken \| in two\n$/);
    assert.match(lines[2], / info {2}and \?\[31mmore port="inside" n=2\n$/);
  });

  it('gives the journal its priorities', () => {
    const lines = logged('journal', 'debug', (log) => {
      log.debug('a');
      log.info('b');
      log.warn('c');
      log.error('d');
      log.fatal('e');
    });
    assert.deepEqual(lines, ['<7>a\n', '<6>b\n', '<4>c\n', '<3>d\n', '<2>e\n']);
  });

  it('knows where it writes to', () => {
    const folder = mkdtempSync(join(tmpdir(), 'constellation-log-'));
    const file = openSync(join(folder, 'log'), 'w');
    try {
      const { dev, ino } = fstatSync(file);
      assert.equal(formOf(file, undefined), 'json');
      assert.equal(formOf(file, `${dev}:${ino}`), 'journal');
      assert.equal(formOf(file, `${dev}:${ino + 1}`), 'json');
    } finally {
      closeSync(file);
      rmSync(folder, { recursive: true });
    }
  });
});

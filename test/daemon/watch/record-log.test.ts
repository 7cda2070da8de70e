import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { RecordRow } from '../../../daemon/views/source.js';
import { RecordLog } from '../../../daemon/watch/record-log.js';
import { createRecordRing, RecordWriter } from '../../../shm/record-ring.js';
import { defineMiddlebox, type Middlebox } from '../../../workers/api/middlebox.js';
import { type Recorder, recordKind } from '../../../workers/api/records.js';
import { declareChain, type Link, openProcesses } from '../../../workers/plane/chain.js';
import { Plane } from '../../workers/support/plane.js';

const NOW_MS = Date.UTC(2026, 0, 1);
const KIND = { middlebox: 'test', name: 'thing', help: '', words: 1, render: ([n]: Int32Array) => ({ n }) };
const BROKEN = { ...KIND, name: 'broken', render: () => assert.fail('as it is meant to') };

describe('file of records', () => {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-records-'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  /** A log over one ring, what it said, and how to write a record and have it taken. */
  function opened(file: string | null, keep = 10) {
    const ring = createRecordRing(0);
    const writer = new RecordWriter(ring);
    const said: string[] = [];
    const log = new RecordLog({
      rings: [ring],
      kinds: [KIND, BROKEN],
      site: 'a',
      file,
      keep,
      lostByWorkers: () => 0,
      retryMs: 1,
      log: (level, text) => said.push(`${level}: ${text}`),
    });
    const record = (n: number, kind = 0): boolean => writer.write(kind, NOW_MS + n, Int32Array.of(n));
    return { log, said, record };
  }

  const numbers = (file: string): number[] =>
    readFileSync(file, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line).n);

  it('writes a line of JSON for each, appends, and lets the group read', async () => {
    const file = join(folder, 'eve.json');
    for (const n of [1, 2]) {
      const { log, record } = opened(file);
      await log.start();
      record(n);
      log.pump();
      await log.close();
    }
    const [first] = readFileSync(file, 'utf8').split('\n');
    assert.equal(first, '{"timestamp":"2026-01-01T00:00:00.001+0000","event_type":"thing","site":"a","n":1}');
    assert.deepEqual(numbers(file), [1, 2]);
    assert.equal(statSync(file).mode & 0o7777 & ~0o640, 0);
  });

  it('writes everything, however much comes while it writes', async () => {
    const file = join(folder, 'eve.json');
    const { log, record } = opened(file);
    let written = 0;
    for (let n = 0; n < 200; n++) {
      for (let i = 0; i < 100; i++) if (record(written)) written++;
      log.pump();
      await new Promise((resolve) => setImmediate(resolve));
    }
    await log.close();
    assert.deepEqual(
      numbers(file),
      Array.from({ length: written }, (_, n) => n),
    );
    assert.deepEqual(log.figures, { file, written, lost: 0 });
  });

  it('goes on in a new file after it was moved away and opened anew', async () => {
    const file = join(folder, 'eve.json');
    const { log, record } = opened(file);
    record(1);
    log.pump();
    await log.reopen();
    renameSync(file, `${file}.1`);
    record(2);
    log.pump();
    await log.reopen();
    record(3);
    await log.close();
    assert.deepEqual([numbers(`${file}.1`), numbers(file)], [[1, 2], [3]]);
  });

  it('says once that it cannot write, counts what is lost, and goes on when it can', async () => {
    const file = join(folder, 'later', 'eve.json');
    const { log, said, record } = opened(file);
    await log.start();
    for (const n of [1, 2]) {
      record(n);
      log.pump();
      await assert.rejects(log.reopen(), /records cannot be written to .*ENOENT/);
    }
    assert.equal(said.length, 1);
    assert.match(said[0], /^error: records cannot be written to .*ENOENT.*they are lost until they can$/);
    mkdirSync(join(folder, 'later'));
    await log.reopen();
    record(3);
    await log.close();
    assert.deepEqual(numbers(file), [3]);
    assert.equal(said[1], `info: records are written to ${file} again; 2 were lost meanwhile`);
    assert.deepEqual(log.figures, { file, written: 1, lost: 2 });
  });

  it('does not wait for the reader of a FIFO', async () => {
    const file = join(folder, 'fifo');
    execFileSync('mkfifo', [file]);
    const { log, said, record } = opened(file);
    await log.start();
    record(1);
    log.pump();
    await log.close();
    assert.match(said[0], /^error: records cannot be written to .*fifo: ENXIO/);
    assert.equal(log.figures.lost, 1);
  });

  it('says once what a full disk said, counts what is lost, and goes on', async function () {
    if (statSync('/dev/full', { throwIfNoEntry: false }) === undefined) this.skip();
    const { log, said, record } = opened('/dev/full');
    for (const n of [1, 2, 3]) {
      record(n);
      while (log.figures.lost < n) {
        log.pump();
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
    assert.deepEqual(
      log.counters().map(({ name, total }) => [name, total]),
      [
        ['records_written', 0],
        ['records_unwritten', 3],
      ],
    );
    await log.close();
    assert.equal(said.length, 1, 'a file on a full disk can be opened');
    assert.match(said[0], /^error: records cannot be written to \/dev\/full: ENOSPC/);
  });

  it('keeps the last of each kind, also where there is no file', async () => {
    const { log, said, record } = opened(null, 3);
    for (let n = 0; n < 100; n++) record(n);
    record(7, 1);
    log.pump();
    const kept = log.rows('thing').map((row: RecordRow) => row['n']);
    assert.deepEqual(kept.slice(-3), [97, 98, 99]);
    assert.ok(kept.length < 6);
    assert.deepEqual(log.rows('broken'), []);
    assert.match(said.join(), /^error: test: record broken cannot be written as JSON: .*as it is meant to.*said once$/);
    await assert.rejects(log.reopen(), /records\.file is not set/);
    await log.close();
  });

  it('takes what a middlebox records; what finds no room is counted', () => {
    let recorder: Recorder | undefined;
    const recording = defineMiddlebox({
      name: 'recording',
      help: 'Records.',
      options: {},
      counters: {},
      records: { seen: recordKind('what was seen', 2, ([a, b]) => ({ a, b })) },
      state: () => ({}),
      open: ({ records }) => {
        recorder = records.seen;
        return () => {};
      },
    });
    const link: Link = { middlebox: recording as unknown as Middlebox, options: {} };
    const declaration = declareChain([link]);
    const plane = new Plane({ metrics: declaration.metrics });
    openProcesses(declaration, [], plane.context);
    if (recorder === undefined) return assert.fail('was not opened');
    recorder.words.set([4, 5]);
    assert.ok(recorder.write());
    plane.recorded.read(1, (kind, unixMs, words) => {
      assert.deepEqual([kind, unixMs, declaration.records[kind].render(words)], [0, plane.nowMs, { a: 4, b: 5 }]);
    });
    while (recorder.write());
    assert.equal(plane.counts()['records_lost'], 1);
    const bad = { ...recording, records: { seen: { help: '', words: 0, render: () => ({}) } } } as unknown as Middlebox;
    assert.throws(() => declareChain([{ ...link, middlebox: bad }]), /record seen: its words are not a whole number/);
  });
});

/**
 * Rules are compiled beside main: while they are, main goes on, and what becomes of a compilation
 * harms nothing else.
 */

import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { unanswered } from '../../../daemon/base/read-file.js';
import { middleboxModule } from '../../../daemon/config/middleboxes.js';
import { RulesKeeper, reloadProblem } from '../../../daemon/rules/rules.js';
import { RulesCompiler } from '../../../daemon/rules/rules-compiler.js';
import { createRuleBoard, RuleReader } from '../../../shm/rule-board.js';
import { loadChain } from '../../../workers/plane/load.js';
import { PROJECT } from '../../testbed/compile.js';

/**
 * Its rules are words, one a line: numbers are kept, others are orders to its compiler. `wait FILE`
 * waits until there is one, `read FIFO` in a system call.
 */
const OWN = `import { existsSync, readFileSync } from 'node:fs';
import { defineMiddlebox, option } from 'constellation';
function compile(text) {
  const lines = text.trim().split('\\n');
  if (lines[0] === 'throw') throw new Error('no such luck');
  if (lines[0] === 'exit') process.exit(3);
  if (lines[0] === 'loop') for (;;);
  const [order, file] = lines[0].split(' ');
  if (order === 'read') readFileSync(file);
  while (order === 'wait' && !existsSync(file)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5);
  if (lines[0] === 'wrong') return { problems: [{ line: 1, column: 1, message: 'this is wrong' }] };
  return { words: Int32Array.from(lines, Number), entries: lines.map((text, i) => ({ line: i + 1, text })) };
}
export default defineMiddlebox({
  name: 'own',
  help: 'Has rules.',
  options: { rules: option.rules('what it does', { compile }) },
  counters: {},
  state: () => ({}),
  open: () => () => {},
});
`;

/** Of one that is to be ended. Long enough for the others to end in time on a busy machine. */
const LIMIT_MS = 8_000;

describe('rules of middleboxes', function () {
  this.timeout(60_000);
  let folder = '';
  let own = '';
  let file = '';

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-rules-'));
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(PROJECT, join(folder, 'node_modules/constellation'));
    writeFileSync(join(folder, 'own.mjs'), OWN);
    own = pathToFileURL(join(folder, 'own.mjs')).href;
    file = join(folder, 'site.rules');
  });
  after(() => rmSync(folder, { recursive: true }));

  const write = (text: string) => writeFileSync(file, text);

  async function keep(module: string, compiler?: RulesCompiler, board = createRuleBoard(1)): Promise<RulesKeeper> {
    const source = { file, text: '', ports: ['inside', 'outside'] };
    const middleboxes = [{ module, options: { rules: source } }];
    const declaration = await loadChain(middleboxes, { form: 'totals', members: 8, seed: '' });
    const owner = {
      declaration,
      plan: { middleboxes },
      buffers: { rules: [board] },
      slots: { workers: 1 },
    };
    return new RulesKeeper(owner as never, compiler, 100);
  }

  const texts = (keeper: RulesKeeper) => keeper.rows().map(({ text }) => text);

  it('are compiled while main goes on', async () => {
    const keeper = await keep(own);
    const go = join(folder, 'go');
    write(`wait ${go}\n7`);
    let isDone = false;
    const reloaded = keeper.reload().finally(() => {
      isDone = true;
    });
    // Compiled by main, this would not come to an end, and there would be no file.
    for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
    assert.ok(!isDone);
    assert.deepEqual(texts(keeper), []);
    writeFileSync(go, '');
    assert.equal((await reloaded)[0].entries, 2);
    assert.equal(texts(keeper)[1], '7');
  });

  it('of a firewall, ten thousand of them, leave main its turns', async () => {
    const lines = Array.from(
      { length: 10_000 },
      (_, n) => `ip saddr 10.${n >> 8}.${n & 255}.0/24 ip daddr 192.168.${n & 255}.0/24 tcp dport ${1 + n} accept`,
    );
    write(lines.join('\n'));
    const keeper = await keep(middleboxModule('firewall'));
    let turns = 0;
    let isDone = false;
    const reloaded = keeper.reload().finally(() => {
      isDone = true;
    });
    while (!isDone) {
      await new Promise((resolve) => setImmediate(resolve));
      turns++;
    }
    assert.ok((await reloaded)[0].entries >= 10_000);
    assert.ok(turns > 100, `${turns} turns`);
  });

  it('take effect in the order in which they were asked for', async () => {
    const keeper = await keep(own);
    write('1');
    const first = keeper.reload().then(([{ version }]) => [version, ...texts(keeper)]);
    const second = keeper.reload().then(([{ version }]) => [version, ...texts(keeper)]);
    assert.deepEqual(await first, [1, '1']);
    write('2');
    const third = keeper.reload().then(([{ version }]) => [version, ...texts(keeper)]);
    assert.equal((await second)[0], 2);
    assert.deepEqual(await third, [3, '2']);
  });

  for (const [order, message] of [
    ['wrong', /^FILE:1:1: this is wrong$/],
    ['throw', /^FILE: compiling failed: no such luck$/],
    ['exit', /^FILE: compiling failed: /],
    ['loop', /^FILE: compiling took more than 8 s, and was ended$/],
  ] as const)
    it(`stay as they are when the compiler meets "${order}", and the error names the file`, async () => {
      const keeper = await keep(own, new RulesCompiler(LIMIT_MS));
      write('1\n2');
      await keeper.reload();
      write(order);
      await assert.rejects(keeper.reload(), (error: Error) => {
        assert.match(error.message.replaceAll(file, 'FILE'), message);
        return true;
      });
      assert.deepEqual(texts(keeper), ['1', '2']);
      assert.equal(keeper.inUse()[0].version, 1);
      write('3');
      assert.equal((await keeper.reload())[0].version, 2, 'and the next ones are taken');
      assert.deepEqual(texts(keeper), ['3']);
    });

  it('that are in force are not said to stay as they were, though a worker has not taken them', async () => {
    const board = createRuleBoard(1);
    const keeper = await keep(own, undefined, board);
    const problem = (): Promise<string> =>
      keeper.reload().then(
        () => 'none',
        (error) => reloadProblem(error),
      );
    write('1');
    await keeper.reload();
    new RuleReader(board, 1, 0).refresh();
    write('2');
    assert.equal(await problem(), 'the new rules are in force, but some worker has not taken them yet');
    assert.deepEqual(texts(keeper), ['2']);
    write('3');
    const stay = 'the rules stay as they are: some worker has not taken the rules loaded last yet';
    assert.equal(await problem(), stay);
    assert.deepEqual(texts(keeper), ['2']);
  });

  it('are read from a regular file alone: a FIFO without a writer keeps nobody waiting', async () => {
    const keeper = await keep(own);
    write('1');
    await keeper.reload();
    for (const make of [() => execFileSync('mkfifo', [file]), () => mkdirSync(file)]) {
      rmSync(file);
      make();
      await assert.rejects(keeper.reload(), (error: Error) => error.message.endsWith(`${file} is not a regular file`));
      rmSync(file, { recursive: true });
      write('1');
    }
    truncateSync(file, 2 ** 30);
    await assert.rejects(keeper.reload(), /has 1073741824 bytes, and may have 16777216 at most$/);
    write('2');
    assert.equal((await keeper.reload())[0].version, 2);
  });

  it('are given up when their compiler waits in a system call, and taken again once it has returned', async () => {
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const keeper = await keep(own, new RulesCompiler(LIMIT_MS));
    write('1');
    await keeper.reload();
    write(`read ${fifo}`);
    await assert.rejects(keeper.reload(), /compiling took more than 8 s, and was ended$/);
    assert.deepEqual(unanswered(), [`the compiler of ${file}`]);
    write('2');
    await assert.rejects(
      keeper.reload(),
      /the compiler of .*site\.rules still waits in a system call that does not return$/,
    );
    assert.deepEqual(texts(keeper), ['1']);
    writeFileSync(fifo, '');
    while (unanswered().length > 0) await new Promise((resolve) => setTimeout(resolve, 10));
    assert.equal((await keeper.reload())[0].version, 2);
  });

  it('are not put in force any more by an instance that stops', async () => {
    const keeper = await keep(own);
    write('1');
    await keeper.reload();
    write('loop');
    const under = assert.rejects(keeper.reload(), /the instance stops/);
    const next = assert.rejects(keeper.reload(), /the instance stops/);
    keeper.close();
    await Promise.all([under, next]);
    await assert.rejects(keeper.reload(), /the instance stops/);
    assert.deepEqual(texts(keeper), ['1']);
  });
});

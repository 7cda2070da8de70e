import { strict as assert } from 'node:assert';
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

describe('the native binding: fuzz', () => {
  it('survives any arguments: a result or an Error, never a crash', function () {
    this.timeout(120_000);
    const seed = Number(process.env['FUZZ_SEED'] ?? Date.now() % 1e9);
    const script = fileURLToPath(new URL('./fuzz.js', import.meta.url));
    const run = spawnSync(process.execPath, ['--expose-gc', script, `${seed}`], { encoding: 'utf8', timeout: 100_000 });
    assert.equal(run.error, undefined, `the program did not start: ${run.error?.message}`);
    assert.equal(
      run.signal ?? run.status,
      0,
      `FUZZ_SEED=${seed}: ${run.stdout.slice(-2000)} ${run.stderr.slice(-2000)}`,
    );
  });
});

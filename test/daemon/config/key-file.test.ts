import { strict as assert } from 'node:assert';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateKey, readKeyFile, readKeyFileInTime } from '../../../daemon/config/key-file.js';

describe('key file on disk', () => {
  let folder: string;
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-key-'));
  });
  after(() => rmSync(folder, { recursive: true }));

  it('is made for its owner alone, and takes a second key for a rotation', () => {
    const file = join(folder, 'made');
    assert.match(generateKey(file), /made, with key 1/);
    assert.equal(statSync(file).mode & 0o777, 0o600);
    const [first] = readKeyFile(file);
    assert.match(generateKey(file), /added key 2/);
    const both = readKeyFile(file);
    assert.deepEqual(both[0], first, 'the old key is still the one to send with');
    assert.equal(both[1].id, 2);
    assert.throws(() => generateKey(file), /has 2 keys already/);
    assert.deepEqual(readKeyFile(file), both);
  });

  it('is refused when others may read it, when it is missing, and when it is no file', async () => {
    const file = join(folder, 'open');
    generateKey(file);
    for (const mode of [0o640, 0o604, 0o620]) {
      chmodSync(file, mode);
      assert.throws(() => readKeyFile(file), /open: others than its owner may use it \(mode 06[024][04]\).*chmod 600/);
    }
    chmodSync(file, 0o400);
    assert.equal(readKeyFile(file).length, 1);
    assert.throws(() => readKeyFile(join(folder, 'none')), /ENOENT.*--generate-key/);
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    for (const wrong of [folder, fifo]) {
      assert.throws(() => readKeyFile(wrong), /key file .*: it is not a regular file$/);
      await assert.rejects(readKeyFileInTime(wrong), /key file .*: it is not a regular file$/);
    }
    assert.deepEqual(await readKeyFileInTime(file), readKeyFile(file));
    writeFileSync(join(folder, 'big'), '#'.repeat(70_000), { mode: 0o600 });
    assert.throws(() => readKeyFile(join(folder, 'big')), /it has \d+ bytes, and may have 65536 at most/);
  });
});

/**
 * A folder whose file system does not answer, like a network mount whose server is gone. It is a
 * FUSE mount without a program that serves it. System calls on it wait until `release`.
 */

import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const HUNG_FOLDER_NEEDS = ['root', 'file:/dev/fuse', 'tool:mount'] as const;

export class HungFolder {
  readonly path = mkdtempSync(join(tmpdir(), 'constellation-hung-'));
  private fd = -1;

  /** From here on, system calls on the folder wait. */
  hang(): void {
    this.fd = openSync('/dev/fuse', 'r+');
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
    const argv = ['-i', '-t', 'fuse', '-o', options, 'constellation-hung', this.path];
    const { status, stderr } = spawnSync('mount', argv, { stdio: ['ignore', 'ignore', 'pipe', this.fd] });
    if (status !== 0) throw new Error(`mount: ${stderr}`);
  }

  /** Waiting calls return with an error, and the folder is removed. */
  release(): void {
    if (this.fd !== -1) {
      closeSync(this.fd);
      spawnSync('umount', ['-l', this.path]);
    }
    this.fd = -1;
    rmSync(this.path, { recursive: true });
  }
}

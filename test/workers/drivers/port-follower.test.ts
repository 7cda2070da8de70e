/** When a worker's log says that a port cannot be opened. */

import { strict as assert } from 'node:assert';
import type { PortBoardReader } from '../../../shm/port-board.js';
import type { AfXdpDriver } from '../../../workers/drivers/af-xdp.js';
import { PortFollower } from '../../../workers/drivers/port-follower.js';

const PATIENCE_MS = 40;

function nativeError(code: string): Error {
  return Object.assign(new Error(`bind: ${code}`), { code, syscall: 'bind' });
}

describe('a worker that follows its ports', () => {
  it('reports a port that it cannot open only if that lasts', async () => {
    const facts = { ports: 1, mapFd: Int32Array.of(7), attachment: Int32Array.of(0), state: Int32Array.of(0) };
    const said: string[] = [];
    let failing: string | null = 'EINVAL';
    let isOpen = false;
    const driver = {
      isOpen: () => isOpen,
      closePort: () => {
        isOpen = false;
      },
      openPort: () => {
        if (failing !== null) throw nativeError(failing);
        isOpen = true;
      },
    };
    const follower = new PortFollower({
      driver: driver as unknown as AfXdpDriver,
      facts: { ...facts, serve: () => {} } as unknown as PortBoardReader,
      interfaces: ['lo'],
      worker: 0,
      workers: 1,
      report: (problem) => said.push(problem),
      patienceMs: PATIENCE_MS,
    });
    const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, PATIENCE_MS + 10));
    // The interface is created again: what is bound to is not what was read.
    for (const attachment of [1, 2, 3]) {
      facts.attachment[0] = attachment;
      failing = 'EINVAL';
      follower.follow();
      failing = null;
      follower.follow();
      assert.ok(isOpen);
      await pause();
    }
    assert.deepEqual(said, []);
    facts.attachment[0] = 4;
    failing = 'EINVAL';
    follower.follow();
    assert.deepEqual(said, []);
    await pause();
    follower.follow();
    follower.follow();
    assert.deepEqual(said, ['port 0 (lo) is not open yet: bind: EINVAL']);
  });
});

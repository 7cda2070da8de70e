/** Writes cells whose numbers are all equal, as fast as it can, until told to stop. */
import { isMainThread, workerData } from 'node:worker_threads';
import { Region } from '../../shm/region.js';
import { VersionedCells } from '../../shm/versioned.js';

export interface WriterTask {
  readonly memory: SharedArrayBuffer;
  readonly stop: SharedArrayBuffer;
  readonly cells: number;
  readonly floats: number;
}

if (!isMainThread && workerData?.memory !== undefined) {
  const { memory, stop, cells, floats } = workerData as WriterTask;
  const flag = new Int32Array(stop);
  const target = new VersionedCells(new Region(memory), cells, floats);
  const source = new Float64Array(floats);
  for (let n = 1; Atomics.load(flag, 0) === 0; n++) {
    source.fill(n);
    target.write(n % cells, source, floats);
  }
}

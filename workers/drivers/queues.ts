/**
 * Which receive queues of an interface a worker serves. Every queue has one worker. A worker serves
 * as many queues as needed.
 *
 *     queue    0  1  2  3  4        of three workers, worker n serves queue n, n + 3, n + 6 …
 *     worker   0  1  2  0  1
 */

/** The queues of `count` that `worker` serves. */
export function queuesOfWorker(count: number, worker: number, workers: number): number[] {
  const queues: number[] = [];
  for (let queue = worker; queue < count; queue += workers) queues.push(queue);
  return queues;
}

/**
 * Every worker needs a queue of each interface; otherwise it could not send by that port.
 *
 * @throws Error if there are fewer queues than workers
 */
export function assertQueues(name: string, queues: number, workers: number): void {
  if (queues >= workers) return;
  throw new Error(
    `${name} has ${queues} receive ${queues === 1 ? 'queue' : 'queues'} and threads.workers names ${workers} cores: each worker needs a queue of every interface. Name ${queues === 1 ? 'one core' : `at most ${queues} cores`}, or give the interface more queues (ethtool -L ${name} combined ${workers})`,
  );
}

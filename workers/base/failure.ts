/**
 * An error that adds to `error` what failed: its message is `what` and the message of `error`, and
 * its stack is that of `error`.
 */
export function failure(what: string, error: unknown): Error {
  const message = error instanceof Error ? error.message : String(error);
  const failed = new Error(`${what}: ${message}`, { cause: error });
  const frames = error instanceof Error ? (error.stack?.indexOf('\n    at ') ?? -1) : -1;
  if (frames >= 0) failed.stack = `${failed.name}: ${failed.message}${(error as Error).stack?.slice(frames)}`;
  return failed;
}

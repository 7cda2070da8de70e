/**
 * Notifications to the service manager: the instance is ready, is alive, or stops (man 3
 * sd_notify). Without a service manager, they do nothing.
 */

import { notifyServiceManager } from '../../workers/native/index.js';

/** The instance takes packets. `status` is shown by `systemctl status`. */
export function notifyReady(status: string): void {
  send(`READY=1\n${statusLine(status)}`);
}

export function notifyStatus(status: string): void {
  send(statusLine(status));
}

/** Extends the start timeout by a minute, because the start waits for something that may come. */
export function notifyWaiting(status: string): void {
  send(`EXTEND_TIMEOUT_USEC=60000000\n${statusLine(status)}`);
}

/** The state of the instance, for the service manager. */
interface ServiceState {
  readonly takesPackets: boolean;
  readonly status: string;
}

/**
 * Interval of requests for more time while the instance is not ready. The unit's TimeoutStartSec
 * must be longer.
 */
const EXTEND_MS = 20_000;

/**
 * Reports READY to the service manager once the instance takes packets. Until then, asks for more
 * time.
 */
export class ServiceNotices {
  private isReady = false;
  private sent = '';
  private sentAt = Number.NEGATIVE_INFINITY;

  /** `now`: ms of a monotonic clock. */
  update({ takesPackets, status }: ServiceState, now: number): void {
    const isNew = status !== this.sent;
    if (takesPackets && !this.isReady) notifyReady(status);
    else if (this.isReady && isNew) notifyStatus(status);
    else if (!this.isReady && (isNew || now - this.sentAt >= EXTEND_MS)) notifyWaiting(status);
    else return;
    this.isReady ||= takesPackets;
    this.sent = status;
    this.sentAt = now;
  }
}

export function notifyStopping(status = 'stopping'): void {
  send(`STOPPING=1\n${statusLine(status)}`);
}

interface Watchdog {
  stop(): void;
}

/**
 * Reports that the instance is alive, twice per WatchdogSec of the unit. If the main thread hangs
 * or `healthy` returns false, the reports stop. The service manager then ends the instance and
 * starts it again.
 */
export function startWatchdog(healthy: () => boolean = () => true): Watchdog {
  const interval = watchdogInterval();
  if (interval === null) return { stop: () => undefined };
  const ping = (): void => {
    if (healthy()) send('WATCHDOG=1');
  };
  ping();
  const timer = setInterval(ping, interval).unref();
  return { stop: () => clearInterval(timer) };
}

/**
 * Milliseconds between watchdog reports, or `null` if none are expected of this process (man 3
 * sd_watchdog_enabled).
 */
export function watchdogInterval(environment: NodeJS.ProcessEnv = process.env, pid = process.pid): number | null {
  const microseconds = Number(environment['WATCHDOG_USEC']);
  const asked = environment['WATCHDOG_PID'];
  if (!(microseconds > 0) || (asked !== undefined && asked !== String(pid))) return null;
  return Math.max(1, microseconds / 2000);
}

function statusLine(status: string): string {
  return `STATUS=${status.replace(/[\r\n]+/g, ' ')}`;
}

let failed = false;

/** Sends a message. A failure is reported once, and the instance continues. */
function send(message: string): void {
  try {
    notifyServiceManager(message);
  } catch (error) {
    if (!failed) process.emitWarning(error as Error);
    failed = true;
  }
}

/**
 * What the service manager is told: that the instance is ready, that it is alive, that it stops
 * (man 3 sd_notify). All of it does nothing when the instance was not started by one.
 */

import { notifyServiceManager } from '../workers/native/index.js';

/** The instance takes packets. `status` is what `systemctl status` shows. */
export function notifyReady(status: string): void {
  send(`READY=1\n${statusLine(status)}`);
}

export function notifyStatus(status: string): void {
  send(statusLine(status));
}

/**
 * The start takes longer than the unit allows, for a reason that may pass: another minute, please.
 */
export function notifyWaiting(status: string): void {
  send(`EXTEND_TIMEOUT_USEC=60000000\n${statusLine(status)}`);
}

/** A state of the instance, as the service manager is told of it. */
export interface ServiceState {
  readonly takesPackets: boolean;
  readonly status: string;
}

/**
 * While the instance is not ready, it asks for more time so often. The unit's TimeoutStartSec must
 * be longer.
 */
const EXTEND_MS = 20_000;

/**
 * Tells the service manager that the instance serves once it takes packets, and until then to wait.
 */
export class ServiceNotices {
  private isReady = false;
  private told = '';
  private toldAt = Number.NEGATIVE_INFINITY;

  /** `now`: ms of a clock that never steps. */
  update({ takesPackets, status }: ServiceState, now: number): void {
    const isNew = status !== this.told;
    if (takesPackets && !this.isReady) notifyReady(status);
    else if (this.isReady && isNew) notifyStatus(status);
    else if (!this.isReady && (isNew || now - this.toldAt >= EXTEND_MS)) notifyWaiting(status);
    else return;
    this.isReady ||= takesPackets;
    this.told = status;
    this.toldAt = now;
  }
}

export function notifyStopping(status = 'stopping'): void {
  send(`STOPPING=1\n${statusLine(status)}`);
}

export interface Watchdog {
  stop(): void;
}

/**
 * Says that the instance is alive, twice as often as the unit's WatchdogSec asks. When it does not,
 * because the main thread hangs or `healthy` says no, the service manager ends the instance and
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
 * Milliseconds between signs of life, or `null` when none are asked of this process (man 3
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

/** A service manager that cannot be told is said once; the instance does its work all the same. */
function send(message: string): void {
  try {
    notifyServiceManager(message);
  } catch (error) {
    if (!failed) process.emitWarning(error as Error);
    failed = true;
  }
}

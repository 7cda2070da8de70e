/**
 * The log of bindings: which inside endpoint had which external one, and when (RFC 6888 §4).
 * Operators may have to answer that later. Off by default. Remotes are not logged (REQ-12).
 *
 * A site logs the bindings it makes, so each binding is in one site's file. It is logged when it
 * begins, and within about a second of its end. After a restart or stop, an instance no longer
 * knows which bindings it made. For these only the beginning is logged.
 */

import {
  formatIpv4,
  LOOKED_AT_WITHIN_S,
  type NatBinding,
  portNumber,
  type Recorder,
  type RecordFields,
  recordKind,
  type TimerCallback,
  unixMs,
} from '../../api/api.js';

const WORDS = 6;
const NAMES: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP' };
/** Interval at which some slots are checked for bindings that ended. */
export const LOOK_S = 0.1;

/**
 * Words: `portAndProtocol`, internal and external address (raw), external port, begin, end. An end
 * of 0 marks a record of the beginning. For ICMP, ports are identifiers.
 */
export const bindingKind = recordKind('bindings made, and over: log_bindings', WORDS, render);

function render([port, address, externalAddress, externalPort, since, until]: Int32Array): RecordFields {
  const binding = {
    proto: NAMES[port >>> 16],
    src_ip: formatIpv4(address),
    src_port: portNumber(port & 0xffff),
    external_ip: formatIpv4(externalAddress),
    external_port: portNumber(externalPort),
  };
  if (until === 0) return { action: 'bound', ...binding };
  return { action: 'ended', ...binding, start: timeOf(since), end: timeOf(until), duration_s: until - since };
}

function timeOf(seconds: number): string {
  return new Date(unixMs(seconds)).toISOString();
}

interface BindingLog {
  /** Logs that a binding was made. */
  bound(slot: number, now: number): void;
  /** Logs bindings that ended. One worker calls it every `LOOK_S`. */
  readonly look: TimerCallback;
}

/** Made once per worker. `null`: bindings are not logged. */
export function createBindingLog(bindings: NatBinding, record: Recorder): BindingLog | null {
  const { own } = bindings;
  if (own === null) return null;

  function write(
    port: number,
    address: number,
    externalAddress: number,
    externalPort: number,
    since: number,
    until: number,
  ): void {
    const { words } = record;
    words[0] = port;
    words[1] = address;
    words[2] = externalAddress;
    words[3] = externalPort;
    words[4] = since;
    words[5] = until;
    record.write();
  }

  own.onEnd = (address, port, externalAddress, externalPort, since, until) =>
    write(port, address, externalAddress, externalPort, since, until);
  const slots = Math.ceil((bindings.tableSlots * LOOK_S) / LOOKED_AT_WITHIN_S);
  return {
    bound(slot, now) {
      if (!own.note(slot, now)) return;
      write(
        bindings.internalKey(slot),
        bindings.internalAddress(slot),
        bindings.externalAddress(slot),
        bindings.externalPort(slot),
        now,
        0,
      );
    },
    look: (now) => own.look(slots, now),
  };
}

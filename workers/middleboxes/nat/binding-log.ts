/**
 * The log of bindings: which inside endpoint got which external one, from when to when, for who has
 * to answer that later (RFC 6888 §4). Off at first. Remotes are not in it (REQ-12).
 *
 * A site logs the bindings it makes, so that each is in one site's file, once when it begins and
 * once when it is over, within about a second. What an instance made before it was started again,
 * or stopped, it does not know to be its own: of these the beginning is all there is.
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
} from '../../api.js';

const WORDS = 6;
const NAMES: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP' };
/** How often some slots are looked at for bindings that are over. */
export const LOOK_S = 0.1;

/**
 * `portAndProtocol`, raw addresses and external port, and from when to when; 0: it only begins.
 * ICMP: the identifier in the place of the port.
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

export interface BindingLog {
  /** A binding was made. */
  bound(slot: number, now: number): void;
  /** Tells of those that are over; each `LOOK_S`, by one worker. */
  readonly look: TimerCallback;
}

/** Made once per worker, where bindings are logged. */
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
  const slots = Math.ceil((bindings.slots * LOOK_S) / LOOKED_AT_WITHIN_S);
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

/**
 * The log of bindings: which inside endpoint got which external one, and when, for who has to answer that later (RFC 6888 §4). Off
 * at first. Remotes are not in it (REQ-12).
 *
 * A site logs the bindings it makes, so that each is in one site's file. That one ended is not logged: it lasts as long as it is used and its
 * idle timer after that, and the next line with the external endpoint tells that it was over by then, for `reuse` seconds at least.
 */

import { formatIpv4, portNumber, type Recorder, type RecordFields, recordKind } from '../../api.js';

const WORDS = 5;
const NAMES: Readonly<Record<number, string>> = { 1: 'ICMP', 6: 'TCP', 17: 'UDP' };

/** Addresses and ports as the packet has them: raw. ICMP: the identifier in the place of the port. */
export const bindingKind = recordKind('bindings made: log_bindings', WORDS, render);

function render([protocol, address, port, externalAddress, externalPort]: Int32Array): RecordFields {
  return {
    proto: NAMES[protocol],
    src_ip: formatIpv4(address),
    src_port: portNumber(port),
    external_ip: formatIpv4(externalAddress),
    external_port: portNumber(externalPort),
  };
}

export function logBinding(
  record: Recorder,
  protocol: number,
  address: number,
  port: number,
  externalAddress: number,
  externalPort: number,
): void {
  const { words } = record;
  words[0] = protocol;
  words[1] = address;
  words[2] = port;
  words[3] = externalAddress;
  words[4] = externalPort;
  record.write();
}

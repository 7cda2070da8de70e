/** Creates the transport that the settings select. */

import type { ReplicationSettings } from '../replication/settings.js';
import { MulticastReceiver, MulticastSender } from './multicast.js';
import type { ReceiveTransport, SendTransport } from './transport.js';
import { UnicastReceiver, UnicastSender } from './unicast.js';

/** `members`: the member table; absent: the members in the settings, which never change. */
export function sendTransport(
  settings: ReplicationSettings,
  objects: number,
  members?: SharedArrayBuffer,
): SendTransport {
  return settings.transport.kind === 'multicast'
    ? new MulticastSender(settings, settings.transport, objects, members)
    : new UnicastSender(settings, members);
}

export function receiveTransport(settings: ReplicationSettings, objects: number): ReceiveTransport {
  return settings.transport.kind === 'multicast'
    ? new MulticastReceiver(settings, settings.transport, objects)
    : new UnicastReceiver(settings);
}

/**
 * All options of an instance by their path in the configuration, in the order in which people read
 * them.
 */

import { CLUSTER, ETCD, FAULT, MEMBER, REPLICATION, STATE, TRANSPORT } from './cluster.js';
import {
  ADMIN,
  AF_XDP,
  AF_XDP_PORT,
  EARLY_REPLIES,
  HOOKS,
  LOG,
  PCAP,
  PCAP_PORT,
  PLACE,
  RECORDS,
  THREADS,
} from './local.js';
import type { Options } from './option.js';

export interface Section {
  /** Keys from the top. `*`: any key. */
  readonly path: readonly string[];
  /** The condition on another option under which these options exist. */
  readonly when?: string;
  readonly help: string;
  readonly options: Options;
}

export const SECTIONS = {
  cluster: { path: ['cluster'], help: 'The instances that share state.', options: CLUSTER },
  member: {
    path: ['cluster', 'members', '*'],
    help: 'A member of the cluster.',
    options: MEMBER,
  },
  etcd: {
    path: ['cluster', 'membership'],
    when: 'kind: etcd',
    help: 'Members take their ids and slots in etcd, under a lease; one whose lease lapses has crashed.',
    options: ETCD,
  },
  transport: { path: ['transport'], help: 'How state messages travel between members.', options: TRANSPORT },
  fault: {
    path: ['transport', 'fault'],
    help: 'For tests only: faults injected below the real transport, into what this member receives.',
    options: FAULT,
  },
  replication: {
    path: ['replication'],
    help: 'Timing and memory of replication. The defaults suit sites up to some hundred milliseconds apart.',
    options: REPLICATION,
  },
  state: {
    path: ['state'],
    help: 'How state is shared and kept. Members with another counting or sketch_seed refuse each other’s messages.',
    options: STATE,
  },
  threads: { path: ['threads'], help: 'Which threads run on which cores.', options: THREADS },
  place: { path: [], help: 'How the instance stands in the network.', options: PLACE },
  early_replies: {
    path: ['early_replies'],
    help: 'Replies that come before the state they belong to, where routes are asymmetric. The NAT and the firewall make them wait.',
    options: EARLY_REPLIES,
  },
  af_xdp: {
    path: ['packet_io'],
    when: 'driver: af_xdp',
    help: 'Packets of network interfaces, through AF_XDP sockets.',
    options: AF_XDP,
  },
  pcap: {
    path: ['packet_io'],
    when: 'driver: pcap',
    help: 'Packets of capture files, without privileges: for trying out and for tests.',
    options: PCAP,
  },
  af_xdp_port: {
    path: ['ports', '*'],
    when: 'driver: af_xdp',
    help: 'A port that is a network interface.',
    options: AF_XDP_PORT,
  },
  pcap_port: {
    path: ['ports', '*'],
    when: 'driver: pcap',
    help: 'A port that is capture files.',
    options: PCAP_PORT,
  },
  hooks: {
    path: ['hooks'],
    help: 'Programs run when something happens. CONSTELLATION_EVENT, _CLUSTER, _SELF, and of a member lost _MEMBER, _MEMBER_ID, _MEMBER_ADDRESS and _REASON are in their environment; what they print is logged.',
    options: HOOKS,
  },
  admin: { path: ['admin'], help: 'How the instance is administered.', options: ADMIN },
  log: { path: ['log'], help: 'What is logged, to standard error.', options: LOG },
  records: {
    path: ['records'],
    help: 'What middleboxes record: alerts, bindings and the like.',
    options: RECORDS,
  },
} as const satisfies Readonly<Record<string, Section>>;

export const ALL_SECTIONS: readonly Section[] = Object.values(SECTIONS);

/** Former names of options, by section. A file may still use them. */
export const FORMER_NAMES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  replication: { debt_bytes: 'backlog_bytes' },
};

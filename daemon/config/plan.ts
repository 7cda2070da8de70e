/** Translates the operator's configuration into the plan that the threads need. */

import type { Config } from '../../conf/config.js';
import type { InstancePlan } from '../../workers/engine/instance.js';
import type { PlannedMiddlebox } from '../../workers/plane/load.js';

import { clusterIdOf, type ReplicationSettings, replicationSettings } from '../../workers/replication/settings.js';
import { middleboxModule } from './middleboxes.js';
import type { OpenPorts } from './ports.js';

export function planMiddleboxes(config: Config): PlannedMiddlebox[] {
  return config.middleboxes.map(({ name, as, module, options }) => ({
    module: module ?? middleboxModule(name),
    ...(as !== undefined && { name: as }),
    options,
  }));
}

export function planInstance(config: Config, ports: OpenPorts): InstancePlan {
  const { threads } = config;
  const { fault } = config.transport;
  return {
    middleboxes: planMiddleboxes(config),
    shared: config.shared,
    io: ports.io,
    mode: config.mode,
    frames: {
      vlans: config.vlans,
      unknownEthertypes: config.unknown_ethertypes,
      sourceRoutes: config.source_routes,
    },
    routes: ports.routes,
    replication: planReplication(config),
    faults: fault === undefined ? null : { ...fault, delayMsMax: fault.delay_ms_max },
    earlyMsMax: config.early_replies.wait === 'never' ? 0 : config.early_replies.wait_ms_max,
    idle: threads.idle,
    workerCores: threads.workers,
    sendCore: threads.send ?? null,
    receiveCore: threads.receive ?? null,
    logWords: config.replication.log_bytes / 4,
  };
}

export function planReplication(config: Config): ReplicationSettings {
  const { cluster, transport, replication } = config;
  return replicationSettings({
    clusterId: clusterIdOf(cluster.id),
    self: cluster.self.id,
    members: cluster.members.map((member) => ({ ...member, port: transport.port })),
    slots: cluster.slots,
    transport:
      transport.kind === 'unicast'
        ? { kind: 'unicast' }
        : {
            kind: 'multicast',
            group: transport.group,
            port: transport.port,
            interface: cluster.self.address,
            ttl: transport.ttl,
            loopback: false,
          },
    mtu: transport.mtu_bytes,
    ackDelayMs: replication.ack_delay_ms,
    keepaliveMs: replication.keepalive_ms,
    joinWaitMs: replication.join_wait_ms,
    retransmitMsMin: replication.retransmit_min_ms,
    unitLogBytes: replication.unit_log_bytes,
    backlogBytes: replication.backlog_bytes,
    bandwidth: replication.bandwidth,
    maxLagMs: replication.max_lag_ms,
  });
}

/**
 * The configuration file, section by section. This is where every setting is described: the JSON Schema that editors
 * read (constellation.schema.json) and the error messages come from here.
 */

import { z } from 'zod';
import { clusterSchema, replicationSchema, stateSchema, transportSchema } from './cluster.js';
import {
  adminSchema,
  afXdpPortSchema,
  earlyRepliesSchema,
  hooksSchema,
  logSchema,
  modeSchema,
  packetIoSchema,
  pcapPortSchema,
  recordsSchema,
  sourceRoutesSchema,
  threadsSchema,
  unknownEthertypesSchema,
  vlansSchema,
} from './local.js';
import { type MiddleboxDeclaration, middleboxesSchema, type WrittenMiddleboxes } from './middleboxes.js';
import { name } from './values.js';

/** Which form a port takes; `any` only for the JSON Schema, as the errors of a union say little. */
export type Driver = 'af_xdp' | 'pcap';

function portsSchema(driver: Driver | 'any') {
  const port =
    driver === 'af_xdp'
      ? afXdpPortSchema
      : driver === 'pcap'
        ? pcapPortSchema
        : z.union([afXdpPortSchema, pcapPortSchema]);
  return z
    .record(name(), port)
    .meta({ minProperties: 2, maxProperties: 2 })
    .describe(
      'The two ports packets pass between, by names of your choice that middleboxes refer to. The first has index 0, the second 1.',
    );
}

/** The sections, in the order people read them. */
export function sections(declarations: readonly MiddleboxDeclaration[], driver: Driver | 'any') {
  return {
    cluster: clusterSchema,
    transport: transportSchema.prefault({}),
    replication: replicationSchema.prefault({}),
    state: stateSchema.prefault({}),
    threads: threadsSchema.prefault({}),
    mode: modeSchema,
    vlans: vlansSchema,
    unknown_ethertypes: unknownEthertypesSchema,
    source_routes: sourceRoutesSchema,
    early_replies: earlyRepliesSchema.prefault({}),
    packet_io: packetIoSchema.prefault({ driver: 'af_xdp' }),
    ports: portsSchema(driver),
    middleboxes: middleboxesSchema(declarations),
    hooks: hooksSchema.prefault({}),
    admin: adminSchema.prefault({}),
    log: logSchema.prefault({}),
    records: recordsSchema.prefault({}),
  };
}

export type SectionName = keyof ReturnType<typeof sections>;

/** The whole as a JSON Schema (draft 7, which YAML language servers know best). */
export function jsonSchema(declarations: readonly MiddleboxDeclaration[]): Record<string, unknown> {
  const whole = z
    .strictObject(sections(declarations, 'any'))
    .describe('Configuration of one Constellation instance (constellationd -c FILE).');
  return {
    title: 'Constellation',
    ...z.toJSONSchema(whole, { io: 'input', target: 'draft-7' }),
  };
}

/** Everything as written, checked, defaults filled in. */
export interface WrittenConfig {
  readonly cluster: z.output<typeof clusterSchema>;
  readonly transport: z.output<typeof transportSchema>;
  readonly replication: z.output<typeof replicationSchema>;
  readonly state: z.output<typeof stateSchema>;
  readonly threads: z.output<typeof threadsSchema>;
  readonly mode: z.output<typeof modeSchema>;
  readonly vlans: z.output<typeof vlansSchema>;
  readonly unknown_ethertypes: z.output<typeof unknownEthertypesSchema>;
  readonly source_routes: z.output<typeof sourceRoutesSchema>;
  readonly early_replies: z.output<typeof earlyRepliesSchema>;
  readonly packet_io: z.output<typeof packetIoSchema>;
  readonly ports: Readonly<Record<string, WrittenPort>>;
  readonly middleboxes: WrittenMiddleboxes;
  readonly hooks: z.output<typeof hooksSchema>;
  readonly admin: z.output<typeof adminSchema>;
  readonly log: z.output<typeof logSchema>;
  readonly records: z.output<typeof recordsSchema>;
}

export type WrittenPort = z.output<typeof afXdpPortSchema> | z.output<typeof pcapPortSchema>;

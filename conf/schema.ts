/**
 * The schema of the configuration file, section by section. The options are declared in options/.
 * This file arranges them in the file's structure. The JSON Schema that editors read
 * (constellation.schema.json) and the error messages come from here.
 */

import { z } from 'zod';
import { MEMBERS_MAX, type WrittenMember, type WrittenMembership } from '../options/cluster.js';
import { SECTIONS } from '../options/sections.js';
import { expected } from './messages.js';
import { type MiddleboxDeclaration, middleboxesSchema, type WrittenMiddleboxes } from './middleboxes.js';
import { shapeOf } from './option-schema.js';
import { name } from './values.js';

const { etcd } = SECTIONS;
const etcdSchema = z.strictObject({
  kind: z.literal('etcd').describe(etcd.help),
  ...shapeOf(etcd.options, {
    endpoints: z
      .array(z.url({ protocol: /^https?$/, error: expected('a URL such as http://10.0.0.5:2379') }))
      .min(1)
      .max(16),
  }),
});
const staticSchema = z.strictObject({ kind: z.literal('static').describe('The members are those of `members`.') });

const clusterSchema = z
  .strictObject(
    shapeOf(SECTIONS.cluster.options, {
      members: z
        .array(z.strictObject(shapeOf(SECTIONS.member.options)))
        .min(1)
        .max(MEMBERS_MAX)
        .optional() as z.ZodType<WrittenMember[] | undefined>,
      membership: z.discriminatedUnion('kind', [staticSchema, etcdSchema]).prefault({ kind: 'static' }) as z.ZodType<
        WrittenMembership,
        WrittenMembership | undefined
      >,
    }),
  )
  .describe(SECTIONS.cluster.help);

const transportSchema = z
  .strictObject(
    shapeOf(SECTIONS.transport.options, {
      fault: z.strictObject(shapeOf(SECTIONS.fault.options)).optional(),
    }),
  )
  .describe(SECTIONS.transport.help);

const replicationSchema = z.strictObject(shapeOf(SECTIONS.replication.options)).describe(SECTIONS.replication.help);
const stateSchema = z.strictObject(shapeOf(SECTIONS.state.options)).describe(SECTIONS.state.help);
const threadsSchema = z.strictObject(shapeOf(SECTIONS.threads.options)).describe(SECTIONS.threads.help);
const earlyRepliesSchema = z
  .strictObject(shapeOf(SECTIONS.early_replies.options))
  .describe(SECTIONS.early_replies.help);
const hooksSchema = z.strictObject(shapeOf(SECTIONS.hooks.options)).describe(SECTIONS.hooks.help);
const adminSchema = z.strictObject(shapeOf(SECTIONS.admin.options)).describe(SECTIONS.admin.help);
const logSchema = z.strictObject(shapeOf(SECTIONS.log.options)).describe(SECTIONS.log.help);
const recordsSchema = z.strictObject(shapeOf(SECTIONS.records.options)).describe(SECTIONS.records.help);
const placeShape = shapeOf(SECTIONS.place.options);

const packetIoSchema = z
  .discriminatedUnion('driver', [
    z.strictObject({
      driver: z.literal('af_xdp').describe(SECTIONS.af_xdp.help),
      ...shapeOf(SECTIONS.af_xdp.options),
    }),
    z.strictObject({ driver: z.literal('pcap').describe(SECTIONS.pcap.help), ...shapeOf(SECTIONS.pcap.options) }),
  ])
  .describe('Where packets come from and go to.');

const afXdpPortSchema = z.strictObject(shapeOf(SECTIONS.af_xdp_port.options));
const pcapPortSchema = z.strictObject(shapeOf(SECTIONS.pcap_port.options));

/**
 * Which form a port takes. `any` is only for the JSON Schema, because the errors of a union say
 * little.
 */
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
    transport: transportSchema.prefault({} as never),
    replication: replicationSchema.prefault({} as never),
    state: stateSchema.prefault({} as never),
    threads: threadsSchema.prefault({} as never),
    ...placeShape,
    early_replies: earlyRepliesSchema.prefault({} as never),
    packet_io: packetIoSchema.prefault({ driver: 'af_xdp' } as never),
    ports: portsSchema(driver),
    middleboxes: middleboxesSchema(declarations),
    hooks: hooksSchema.prefault({} as never),
    admin: adminSchema.prefault({} as never),
    log: logSchema.prefault({} as never),
    records: recordsSchema.prefault({} as never),
  };
}

export type SectionName = keyof ReturnType<typeof sections>;

/** The whole schema as JSON Schema (draft 7, which YAML language servers support best). */
export function jsonSchema(declarations: readonly MiddleboxDeclaration[]): Record<string, unknown> {
  const whole = z
    .strictObject(sections(declarations, 'any'))
    .describe('Configuration of one Constellation instance (constellationd -c FILE).');
  return {
    title: 'Constellation',
    ...z.toJSONSchema(whole, { io: 'input', target: 'draft-7' }),
  };
}

/**
 * The configuration as written, after checking: numbers in the unit of their options, with
 * defaults.
 */
export interface WrittenConfig {
  readonly cluster: z.output<typeof clusterSchema>;
  readonly transport: z.output<typeof transportSchema>;
  readonly replication: z.output<typeof replicationSchema>;
  readonly state: z.output<typeof stateSchema>;
  readonly threads: z.output<typeof threadsSchema>;
  readonly mode: z.output<typeof placeShape.mode>;
  readonly vlans: z.output<typeof placeShape.vlans>;
  readonly unknown_ethertypes: z.output<typeof placeShape.unknown_ethertypes>;
  readonly source_routes: z.output<typeof placeShape.source_routes>;
  readonly early_replies: z.output<typeof earlyRepliesSchema>;
  readonly packet_io: z.output<typeof packetIoSchema>;
  readonly ports: Readonly<Record<string, WrittenPort>>;
  readonly middleboxes: WrittenMiddleboxes;
  readonly hooks: z.output<typeof hooksSchema>;
  readonly admin: z.output<typeof adminSchema>;
  readonly log: z.output<typeof logSchema>;
  readonly records: z.output<typeof recordsSchema>;
}

type WrittenPort = z.output<typeof afXdpPortSchema> | z.output<typeof pcapPortSchema>;

/** Who takes part, and how the members speak to each other. */

import { z } from 'zod';
import { expected } from './messages.js';
import { ipv4, name, path, probability, whole } from './values.js';

/** Every member holds a place in every acknowledgement vector, and a vector has to fit a message. */
export const MEMBERS_MAX = 64;
/** Messages carry member ids in 16 bits. */
export const MEMBER_ID_MAX = 65_535;

const staticSchema = z.strictObject({ kind: z.literal('static').describe('The members are those of `members`.') });

const etcdSchema = z.strictObject({
  kind: z
    .literal('etcd')
    .describe('Members take their ids and slots in etcd, under a lease; one whose lease lapses has crashed.'),
  endpoints: z
    .array(z.url({ protocol: /^https?$/, error: expected('a URL such as http://10.0.0.5:2379') }))
    .min(1)
    .max(16)
    .describe('Where etcd serves clients. The others are tried when one does not answer.'),
  prefix: z
    .string()
    .regex(/^\/[\x21-\x7e]*$/, { error: expected('a path such as /constellation') })
    .max(200)
    .default('/constellation')
    .describe('What the keys in etcd begin with; the cluster’s id follows.'),
  lease_ttl_s: whole(2, 3600)
    .default(10)
    .describe('A member that did not renew its lease for so long has crashed, to the others.'),
});

const membershipSchema = z
  .discriminatedUnion('kind', [staticSchema, etcdSchema])
  .describe('Where the list of members comes from.');

export const clusterSchema = z
  .strictObject({
    id: z
      .string()
      .min(1)
      .max(255)
      .describe(
        'Any text, the same at every member. It is hashed into every state message, so that two clusters that can hear each other do not mix.',
      ),
    self: name().describe('Which of the members this instance is.'),
    members: z
      .array(
        z.strictObject({
          name: name().describe('What the member is called in tables and logs.'),
          id: whole(1, MEMBER_ID_MAX).describe(
            'The number that stands for the member in messages and in replicated state. Never give a number to another site.',
          ),
          address: ipv4().describe(
            'The IPv4 address the member sends state messages from and receives them at. At the member itself it is an address of one of its interfaces.',
          ),
          slot: whole(0, MEMBERS_MAX - 1)
            .optional()
            .describe(
              'Which of the slots is the member’s, the same at every member. Absent: the one after that of the member with the next lower id, from 0. Give it where a member with an id between others’ is added, or one is taken away, so that the others keep theirs.',
            ),
        }),
      )
      .min(1)
      .max(MEMBERS_MAX)
      .optional()
      .describe('All members, this one included; the same list at every member. Left out with membership by etcd.'),
    address: ipv4()
      .optional()
      .describe('With membership by etcd: this member’s address, as in `members`, which is left out then.'),
    membership: membershipSchema.prefault({ kind: 'static' }),
    key_file: path()
      .optional()
      .describe(
        'File with the cluster’s key, the same at every member, readable by none but the user the daemon runs as; `constellationd --generate-key FILE` makes one. State messages are encrypted and authenticated with it. SIGHUP or `constellation reload keys` reads it again.',
      ),
    insecure: z
      .boolean()
      .default(false)
      .describe(
        'true: run without a key_file though members have other addresses than loopback. Whoever can send to this host can then change its state, and who listens can read it: only for networks that nobody else is on.',
      ),
    slots: whole(1, MEMBERS_MAX)
      .optional()
      .describe(
        'Places for members, the same at every member: more than there are members leaves room to add some while the cluster runs. External ports and totals are divided by slots. Absent: as many as the members need, at least 2; with etcd, 8.',
      ),
  })
  .describe('The instances that share state.');

/** Below this a state message could not carry its header, a vector of all members, and the largest record. */
export const MTU_BYTES_MIN = 1280;
/** The largest jumbo frame in use; beyond it fragments would be sent, and one lost fragment loses the message. */
export const MTU_BYTES_MAX = 9216;

const faultSchema = z
  .strictObject({
    seed: whole(0, 2 ** 31 - 1)
      .default(1)
      .describe('Where the sequence of faults starts; the same seed gives the same faults.'),
    loss: probability().default(0).describe('Share of messages lost.'),
    duplicate: probability().default(0).describe('Share of messages delivered twice.'),
    delay: probability().default(0).describe('Share of messages held back, and so overtaken by later ones.'),
    delay_ms_max: whole(0, 60_000).default(100).describe('How long a message is held back at most.'),
  })
  .describe('For tests only: faults injected below the real transport, into what this member receives.');

export const transportSchema = z
  .strictObject({
    kind: z
      .enum(['multicast', 'unicast'])
      .default('multicast')
      .describe(
        'How state messages travel. multicast: one message reaches all members; the network between them has to route the groups. What only one member lacks goes to its address by unicast, so the port has to be open there too. unicast: one copy to each member, which works everywhere, as on the internet and in public clouds.',
      ),
    port: whole(1, 65_535)
      .default(7400)
      .describe(
        'UDP port of state messages, and TCP port of snapshots for members that join; the same at every member.',
      ),
    group: ipv4()
      .default('239.83.0.0')
      .describe('The first multicast group. State object n uses the n-th group after it.'),
    ttl: whole(1, 255)
      .default(1)
      .describe('Time to live of multicast messages: how many routers they may pass, plus one.'),
    mtu_bytes: whole(MTU_BYTES_MIN, MTU_BYTES_MAX)
      .default(1500)
      .describe(
        'Largest IP packet that passes between all members unfragmented. Inside a tunnel it is smaller than the link’s.',
      ),
    fault: faultSchema.optional(),
  })
  .describe('How state messages travel between members.');

export const replicationSchema = z
  .strictObject({
    ack_delay_ms: whole(0, 1000)
      .default(5)
      .describe('How long an acknowledgement may wait for a message to travel with.'),
    keepalive_ms: whole(10, 60_000)
      .default(200)
      .describe(
        'A member that has nothing to say says so this often; it is also how soon a lost last message is noticed.',
      ),
    join_wait_ms: whole(0, 600_000)
      .default(3000)
      .describe(
        'A fresh instance that has heard no member with state for so long begins without any. Members that all start at once do not wait.',
      ),
    retransmit_min_ms: whole(1, 5000)
      .default(20)
      .describe('The shortest time to wait for an acknowledgement before sending again, however near the members are.'),
    log_bytes: whole(64 * 1024, 1024 ** 3)
      .default(4 * 1024 ** 2)
      .describe(
        'Size of each worker’s log ring: operations between a worker and the send thread. Rounded up to a power of two.',
      ),
    unit_log_bytes: whole(64 * 1024, 1024 ** 3)
      .default(8 * 1024 ** 2)
      .describe(
        'How much this member keeps, for each state object, of what not every other member has acknowledged. Rounded up to a power of two.',
      ),
    bandwidth: whole(0, 10 ** 12)
      .default(0)
      .describe(
        'What this member sends at most, in bits a second of IP packets, repetitions and acknowledgements included; 0: no limit. Kept over any 100 ms as long as it carries four of the longest packets to every other member in that time.',
      ),
    debt_bytes: whole(0, 2 ** 40)
      .default(512 * 1024 ** 2)
      .describe(
        'Memory for what members are owed that are silent or behind when the unit log is full: coalesced, seldom more for each than the state itself. A member for which it does not suffice needs a snapshot.',
      ),
  })
  .describe('Timing and memory of replication. The defaults suit sites up to some hundred milliseconds apart.');

/** 64 bits, at four a character: fewer can be tried out. */
const SEED_LENGTH_MIN = 16;

export const stateSchema = z
  .strictObject({
    counting: z
      .enum(['totals', 'increments'])
      .default('totals')
      .describe(
        'How counters and sketches tell others what they counted. totals: what they have counted in all, which survives losses, restarts and partitions, and costs 8 bytes a cell and member. increments: what came since, which costs 8 bytes a cell, and may count wrongly where a thread dies or a member is silent for long.',
      ),
    sketch_seed: z
      .string({ error: expected('text of 16 characters or more, such as `openssl rand -hex 16` prints, in quotes') })
      .refine((text) => text === '' || text.length >= SEED_LENGTH_MIN, {
        error: `must have at least ${SEED_LENGTH_MIN} characters, such as \`openssl rand -hex 16\` prints`,
      })
      .default('')
      .describe(
        'A secret that the hashes of sketches are keyed with, so that nobody can choose packets that meet in one cell. Absent: the hashes are known to everybody.',
      ),
  })
  .describe('How state is shared: the same at every member. Members that differ in it refuse each other’s messages.');

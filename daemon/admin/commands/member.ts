/** The `member` commands: list and change the members, as this instance knows them. */

import { isIPv4 } from 'node:net';
import { printable, UsageError } from '../../base/command-errors.js';
import type { MemberRow } from '../../views/source.js';
import { type Column, record, table } from '../answer.js';
import { type Call, type Command, expectNoWords } from '../command.js';

const COLUMNS: readonly Column<MemberRow>[] = [
  { title: 'MEMBER', cell: (member) => member.name },
  { title: 'ID', cell: (member) => member.id, right: true },
  { title: 'SLOT', cell: (member) => member.slot, right: true },
  { title: 'ADDRESS', cell: (member) => member.address },
  { title: 'ROLE', cell: (member) => member.role },
  { title: 'STATE', cell: (member) => member.state },
];

/** Help text on the reach of every command that changes the member list. */
const REACH = [
  'Give it at every member: it changes the list of the instance that is asked, until that is started again. Change',
  'cluster.members in the configuration files too. With etcd, once at any member; it lasts.',
];

export const memberList: Command = {
  name: 'member list',
  usage: '',
  summary: 'All members, with their slots: this one, those that take part, those that left.',
  details: [
    'ROLE   self, member, evicted (declared dead; it must restart), left',
    'STATE  of this instance: as in status; of others: reachable, silent, never (heard), leaving, left, dead, refused',
  ],
  async run(call) {
    expectNoWords(call, memberList.name);
    return table(COLUMNS, await call.source.members());
  },
};

export const memberAdd: Command = {
  name: 'member add',
  usage: 'NAME ID ADDRESS [slot=N]',
  summary: 'Take a member in while the cluster runs.',
  details: [
    'It gets the lowest free slot, or slot N: the same at every member, and in its own configuration file.',
    'Then start the instance there: it joins, with a snapshot of the state.',
    ...REACH,
  ],
  async run(call) {
    const [name, id, address, place, ...rest] = call.words;
    if (address === undefined || rest.length > 0)
      throw new UsageError('member add needs NAME ID ADDRESS, and may have slot=N');
    if (!/^[a-z][a-z0-9_-]{0,30}$/.test(name)) throw new UsageError(`${printable(name)} cannot be a member's name`);
    const number = whole(id, 1, 65_535, 'ID');
    if (!isIPv4(address)) throw new UsageError(`${printable(address)} is not an IPv4 address`);
    const slot = place === undefined ? undefined : whole(/^slot=(.*)$/.exec(place)?.[1] ?? place, 0, 63, 'slot=N');
    return record(await call.source.addMember({ name, id: number, address, slot }));
  },
};

export const memberRemove: Command = {
  name: 'member remove',
  usage: 'NAME [force]',
  summary: 'Take a member that has left off the list; its slot may be given to another.',
  details: [
    'Drain it and shut it down first. What one has crashed with is completed by member evict.',
    'One that is heard is taken off only by force.',
    ...REACH,
  ],
  async run(call) {
    const { name, force } = nameAndForce(call, memberRemove.name);
    return record(await call.source.removeMember(name, force));
  },
};

export const memberEvict: Command = {
  name: 'member evict',
  usage: 'NAME [force]',
  summary: 'Declare that a member has crashed: the others complete what it left half-delivered, and wait no more.',
  details: [
    'Its present incarnation is declared dead, even if it is only cut off. It must restart, and then joins again.',
    'One that is heard is alive, and evicted only by force.',
    ...REACH,
  ],
  async run(call) {
    const { name, force } = nameAndForce(call, memberEvict.name);
    return record(await call.source.evictMember(name, force));
  },
};

function nameAndForce(call: Call, command: string): { readonly name: string; readonly force: boolean } {
  const [name, word, ...rest] = call.words;
  if (name === undefined || (word !== undefined && word !== 'force') || rest.length > 0)
    throw new UsageError(`${command} needs one name, and may have force; see member list`);
  return { name, force: word === 'force' };
}

function whole(text: string, min: number, max: number, what: string): number {
  const value = Number(text);
  if (/^[0-9]{1,9}$/.test(text) && value >= min && value <= max) return value;
  throw new UsageError(`${what} is a whole number from ${min} to ${max}, not ${printable(text)}`);
}

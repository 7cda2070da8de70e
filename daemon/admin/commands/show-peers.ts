import type { PeerRow } from '../../views/source.js';
import { type Column, table } from '../answer.js';
import { type Command, expectNoWords } from '../command.js';

const COLUMNS: readonly Column<PeerRow>[] = [
  { title: 'PEER', cell: (peer) => peer.name },
  { title: 'ID', cell: (peer) => peer.id, right: true },
  { title: 'ADDRESS', cell: (peer) => peer.address },
  { title: 'STATE', cell: (peer) => peer.state },
  { title: 'RTT MS', cell: (peer) => fixed(peer.rtt_ms, 1), right: true },
  { title: 'LEAST', cell: (peer) => fixed(peer.rtt_min_ms, 1), right: true },
  { title: 'HEARD MS AGO', cell: (peer) => fixed(peer.heard_ms_ago, 0), right: true },
  { title: 'CLOCK MS', cell: (peer) => fixed(peer.clock_skew_ms, 0), right: true },
  { title: 'KEY', cell: (peer) => peer.key, right: true },
  { title: 'BUILD', cell: (peer) => peer.build },
  { title: 'ATTACHED', cell: (peer) => (peer.attachment === 'attached' ? 'yes' : peer.attachment) },
  { title: 'UNACKED', cell: (peer) => peer.unacknowledged_records, right: true },
  { title: 'BACKLOG', cell: (peer) => peer.backlog_records, right: true },
  { title: 'MISSING', cell: (peer) => peer.missing_records, right: true },
];

function fixed(value: number | null, digits: number): string | null {
  return value === null ? null : value.toFixed(digits);
}

export const showPeers: Command = {
  name: 'show peers',
  usage: '',
  summary: 'The other members: whether they are heard, how far away they are, what is under way.',
  details: [
    'STATE    reachable; silent (not heard for longer than keepalives take); never (not heard since the start); leaving, left (in order);',
    '         dead (evicted); refused (it is there, and what it sends is refused: the log says what to mend)',
    'RTT MS   round-trip time of state messages, smoothed; LEAST: the shortest ever',
    'CLOCK MS how far its wall clock is ahead of ours; a warning is logged at half of what state objects allow for',
    'KEY      id of the key that its last message was sealed with',
    'BUILD    the build it runs, as its status and --version show it',
    'ATTACHED yes; backlog (it was silent or behind; what it lacks is kept for it); absent (it needs a snapshot)',
    'UNACKED  records of this member that the peer has not acknowledged; BACKLOG: those of them in its backlog',
    'MISSING  records of the peer that are known of here and have not come',
  ],
  async run(call) {
    expectNoWords(call, showPeers.name);
    return table(COLUMNS, await call.source.peers());
  },
};

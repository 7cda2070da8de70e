/**
 * Reads from TCP segments what each end expects of the other, and uses it to check segments that
 * would end a connection (shm/objects/flow/tcp-flow-table.ts).
 */

import { Plausible, type TcpFlowTable } from '../../shm/objects/flow/tcp-flow-table.js';
import type { Batch } from '../packet/batch.js';
import { swap16 as portNumber } from '../packet/ipv4.js';
import { TcpFlag } from '../packet/tcp.js';

const { ACK, SYN } = TcpFlag;
const SEQUENCE = 4;
const ACKNOWLEDGED = 8;
const OFFSET = 12;
const WINDOW = 14;
const TCP_BYTES_MIN = 20;
const IPV4_LENGTH = 2;
const IPV6_LENGTH = 4;
const IPV6_BYTES = 40;
// Options of a SYN (RFC 9293 §3.1, RFC 7323 §2.2).
const OPTION_END = 0;
const OPTION_NOTHING = 1;
const OPTION_SCALE = 3;

/**
 * How long the window of a silent end is trusted to reject resets, in seconds. After that, the end
 * may be sending by another site.
 */
const HEARD_S = 60;

/** The packets must be TCP and contain their header, so they are not later fragments. */
export interface TcpWindow {
  /**
   * Notes what packet `i` says about its sender, end `end` of the connection in `slot`. If `syn`, a
   * SYN sets the end's sequence number and window scale. Otherwise the connection is open, and only
   * the sequence number of a SYN is noted.
   */
  note(i: number, table: TcpFlowTable, slot: number, end: number, syn: boolean, now: number): void;
  /**
   * Whether end `end` can expect packet `i`, a FIN or RST sent to it. If the packet is outside the
   * window, but nothing was heard of that end for a while, the answer is `UNKNOWN`.
   */
  expects(i: number, table: TcpFlowTable, slot: number, end: number, now: number): Plausible;
  /** Whether packet `i`, a RST, refuses the last SYN that end `end` of an open connection sent. */
  refusesSyn(i: number, table: TcpFlowTable, slot: number, end: number): boolean;
  /** The sequence and acknowledgement numbers of the header, as signed 32-bit integers. */
  sequence(i: number): number;
  acknowledged(i: number): number;
  /** Whether the segment has data. */
  hasData(i: number): boolean;
}

/** Made once per worker. */
export function createTcpWindow(batch: Batch): TcpWindow {
  const { version, l3, l4, flags } = batch;
  const { i32, u8, u16 } = batch.memory;

  /** The window scale that a SYN offers. 0 if it offers none. */
  function scaleOf(i: number): number {
    const end = l4[i] + ((u8[l4[i] + OFFSET] & 0xf0) >>> 2);
    for (let at = l4[i] + TCP_BYTES_MIN; at + 2 < end; ) {
      const kind = u8[at];
      if (kind === OPTION_END) return 0;
      if (kind === OPTION_SCALE) return u8[at + 2];
      at += kind === OPTION_NOTHING ? 1 : Math.max(2, u8[at + 1]);
    }
    return 0;
  }

  function sequence(i: number): number {
    return swap32(i32[(l4[i] + SEQUENCE) >> 2]);
  }

  function acknowledged(i: number): number {
    return swap32(i32[(l4[i] + ACKNOWLEDGED) >> 2]);
  }

  function hasData(i: number): boolean {
    const length = l3[i] + (version[i] === 4 ? IPV4_LENGTH : IPV6_LENGTH);
    const end = l3[i] + (version[i] === 4 ? 0 : IPV6_BYTES) + ((u8[length] << 8) | u8[length + 1]);
    return l4[i] + ((u8[l4[i] + OFFSET] & 0xf0) >>> 2) < end;
  }

  return {
    sequence,
    acknowledged,
    hasData,

    note(i, table, slot, end, syn, now) {
      if ((flags[i] & SYN) !== 0) {
        if (syn) table.sawSyn(slot, end, now, sequence(i), scaleOf(i));
        else if ((flags[i] & ACK) === 0) table.sawSynSince(slot, end, sequence(i));
      }
      if ((flags[i] & ACK) !== 0) table.sawAck(slot, end, now, acknowledged(i), portNumber(u16[(l4[i] + WINDOW) >> 1]));
    },

    refusesSyn(i, table, slot, end) {
      return (flags[i] & ACK) !== 0 && table.answersSynSince(slot, end, acknowledged(i));
    },

    expects(i, table, slot, end, now) {
      const hasAck = (flags[i] & ACK) !== 0;
      const plausible = table.isPlausible(slot, end, sequence(i), hasAck, acknowledged(i));
      if (plausible !== Plausible.NO) return plausible;
      return table.silence(slot, end, now) > HEARD_S ? Plausible.UNKNOWN : Plausible.NO;
    },
  };
}

/** Converts a raw word to the number it stands for, as a signed 32-bit integer. */
function swap32(raw: number): number {
  return (raw << 24) | ((raw & 0xff00) << 8) | ((raw >>> 8) & 0xff00) | (raw >>> 24);
}

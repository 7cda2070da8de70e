/**
 * Copies of packets, with their batch columns, in memory that is fixed at the start.
 *
 *     cells    a packet lies in as many cells of `CELL_BYTES` as it needs, which are linked
 *     places   a packet's columns, as they were when it was put in
 *
 * A packet that is taken out is unchanged, so it is neither parsed nor admitted a second time.
 */

import { NONE } from '../../shm/none.js';
import type { PacketDriver } from '../drivers/driver.js';
import type { Batch } from '../packet/batch.js';

export const CELL_BYTES = 256;

interface PacketStore {
  /** Number of packets in the store. */
  readonly count: number;
  /** Whether there is room for a packet of `bytes`. */
  hasRoom(bytes: number): boolean;
  /** Copies packet `i` of the batch, for which there must be room. Returns its place. */
  put(i: number): number;
  /**
   * Adds the packet to the batch, which must have room for it, and frees its place. Returns false
   * if the driver has no memory for it now.
   */
  takeOut(place: number): boolean;
  /** Frees everything. */
  clear(): void;
}

/**
 * Memory that was never used is never touched. Made once per data plane: see the head of batch.ts.
 */
export function createPacketStore(batch: Batch, driver: PacketDriver, packets: number, cellCount: number): PacketStore {
  const { start, length, port, egress, l3, l4, version, protocol, fragment } = batch;
  const { source, destination, ports, link, lengthAt, flags } = batch;
  const { roomBytes, u8 } = driver.memory;

  const cells = new Uint8Array(cellCount * CELL_BYTES);
  const nextCell = new Int32Array(cellCount);
  const freeCells = new Int32Array(cellCount);
  const freePlaces = new Int32Array(packets);
  let freeCellCount = 0;
  let freePlaceCount = 0;
  /** A packet in one piece, for the driver. */
  const whole = new Uint8Array(roomBytes);

  const column = (): Int32Array => new Int32Array(packets);
  const firstCells = column();
  const lengths = column();
  const inPorts = column();
  const outPorts = column();
  const versions = column();
  const protocols = column();
  const fragments = column();
  const sources = column();
  const destinations = column();
  const portPairs = column();
  const links = column();
  const flagBytes = column();
  // Offsets from the start of the frame. The length field's is 0 if there is none.
  const networkHeaders = column();
  const transportHeaders = column();
  const lengthFields = column();

  function clear(): void {
    freeCellCount = cellCount;
    for (let n = 0; n < cellCount; n++) freeCells[n] = cellCount - 1 - n;
    freePlaceCount = packets;
    for (let n = 0; n < packets; n++) freePlaces[n] = packets - 1 - n;
  }

  function hasRoom(bytes: number): boolean {
    return freePlaceCount > 0 && bytes <= roomBytes && bytes <= freeCellCount * CELL_BYTES;
  }

  function put(i: number): number {
    const place = freePlaces[--freePlaceCount];
    const bytes = length[i];
    const from = start[i];
    let before: number = NONE;
    for (let done = 0; done < bytes; done += CELL_BYTES) {
      const cell = freeCells[--freeCellCount];
      if (before === NONE) firstCells[place] = cell;
      else nextCell[before] = cell;
      before = cell;
      const to = cell * CELL_BYTES;
      const end = Math.min(CELL_BYTES, bytes - done);
      for (let n = 0; n < end; n++) cells[to + n] = u8[from + done + n];
    }
    lengths[place] = bytes;
    inPorts[place] = port[i];
    outPorts[place] = egress[i];
    versions[place] = version[i];
    protocols[place] = protocol[i];
    fragments[place] = fragment[i];
    sources[place] = source[i];
    destinations[place] = destination[i];
    portPairs[place] = ports[i];
    links[place] = link[i];
    flagBytes[place] = flags[i];
    networkHeaders[place] = l3[i] - from;
    transportHeaders[place] = l4[i] - from;
    lengthFields[place] = lengthAt[i] === 0 ? 0 : lengthAt[i] - from;
    return place;
  }

  function takeOut(place: number): boolean {
    const bytes = lengths[place];
    let cell = firstCells[place];
    for (let done = 0; done < bytes; done += CELL_BYTES) {
      const from = cell * CELL_BYTES;
      const end = Math.min(CELL_BYTES, bytes - done);
      for (let n = 0; n < end; n++) whole[done + n] = cells[from + n];
      cell = nextCell[cell];
    }
    const i = batch.count;
    if (!driver.insert(batch, inPorts[place], whole, 0, bytes)) return false;
    const to = start[i];
    egress[i] = outPorts[place];
    version[i] = versions[place];
    protocol[i] = protocols[place];
    fragment[i] = fragments[place];
    source[i] = sources[place];
    destination[i] = destinations[place];
    ports[i] = portPairs[place];
    link[i] = links[place];
    flags[i] = flagBytes[place];
    l3[i] = to + networkHeaders[place];
    l4[i] = to + transportHeaders[place];
    lengthAt[i] = lengthFields[place] === 0 ? 0 : to + lengthFields[place];
    forget(place, bytes);
    return true;
  }

  function forget(place: number, bytes: number): void {
    let cell = firstCells[place];
    for (let done = 0; done < bytes; done += CELL_BYTES) {
      freeCells[freeCellCount++] = cell;
      cell = nextCell[cell];
    }
    freePlaces[freePlaceCount++] = place;
  }

  clear();
  return {
    get count() {
      return packets - freePlaceCount;
    },
    hasRoom,
    put,
    takeOut,
    clear,
  };
}

/**
 * The event ring: how a thread that never yields to its event loop writes lines to the log.
 *
 * It has one producer (a thread) and one consumer (main, which polls), and carries whole lines of
 * text. Events are rare. A full ring drops the line and counts it, and main logs how many were
 * lost.
 *
 *     line 0   tail      bytes written, published by the producer
 *     line 1   head      bytes read, released by main
 *     line 2   lost      lines dropped, the producer's own count
 *     data     2^n bytes; an event is level (1), length (2, little-endian), UTF-8 text, and may wrap;
 *              fields follow the text as JSON, after a NUL
 */

import { Region } from './region.js';
import { LINE, powerOfTwo, struct } from './struct.js';

const CONTROL = struct({ tail: LINE, head: LINE, lost: LINE });
const { tail: TAIL, head: HEAD, lost: LOST } = CONTROL.at;
const HEADER_BYTES = 3;
const TEXT_BYTES_MAX = 2048;

const EVENT_LEVELS = ['debug', 'info', 'warn', 'error'] as const;
export type EventLevel = (typeof EVENT_LEVELS)[number];

/** What a line contains beside its text, for programs that read the log. */
export interface EventFields {
  readonly [name: string]: string | number | boolean | EventFields;
}

interface Event {
  readonly level: EventLevel;
  readonly text: string;
  readonly fields?: EventFields;
}

const FIELDS = '\0';

export function createEventRing(bytes = 32 * 1024): SharedArrayBuffer {
  return new SharedArrayBuffer(CONTROL.bytes + powerOfTwo(Math.max(bytes, 2 * (TEXT_BYTES_MAX + HEADER_BYTES))));
}

class EventRing {
  protected readonly control: Int32Array;
  protected readonly data: Uint8Array;
  protected readonly mask: number;

  constructor(buffer: SharedArrayBuffer) {
    const region = new Region(buffer);
    this.control = region.i32(0, CONTROL.words);
    this.data = region.u8(CONTROL.bytes);
    this.mask = this.data.length - 1;
  }
}

export class EventWriter extends EventRing {
  private readonly encoder = new TextEncoder();

  /**
   * Never waits. Not for the packet path. Text that is too long is cut. Returns false if the line
   * is lost: with fields it is too long, or the ring is full.
   */
  write(level: EventLevel, text: string, fields?: EventFields): boolean {
    const line = text.replaceAll(FIELDS, ' ');
    const encoded = this.encoder.encode(fields === undefined ? line : `${line}${FIELDS}${JSON.stringify(fields)}`);
    if (fields !== undefined && encoded.length > TEXT_BYTES_MAX) return false;
    const bytes = encoded.subarray(0, TEXT_BYTES_MAX);
    const tail = Atomics.load(this.control, TAIL);
    const used = (tail - Atomics.load(this.control, HEAD)) | 0;
    if (this.data.length - used < bytes.length + HEADER_BYTES) {
      Atomics.add(this.control, LOST, 1);
      return false;
    }
    this.put(tail, EVENT_LEVELS.indexOf(level));
    this.put(tail + 1, bytes.length & 0xff);
    this.put(tail + 2, bytes.length >>> 8);
    for (let i = 0; i < bytes.length; i++) this.put(tail + HEADER_BYTES + i, bytes[i]);
    Atomics.store(this.control, TAIL, (tail + HEADER_BYTES + bytes.length) | 0);
    return true;
  }

  private put(position: number, byte: number): void {
    this.data[position & this.mask] = byte;
  }
}

export class EventReader extends EventRing {
  private readonly decoder = new TextDecoder();
  private lostSeen = 0;

  /** Every event since the last call. If lines were lost, a last event gives their number. */
  read(): Event[] {
    const events: Event[] = [];
    const tail = Atomics.load(this.control, TAIL);
    let head = Atomics.load(this.control, HEAD);
    while (head !== tail) {
      const level = EVENT_LEVELS[this.get(head)] ?? 'error';
      const length = this.get(head + 1) | (this.get(head + 2) << 8);
      const bytes = new Uint8Array(length);
      for (let i = 0; i < length; i++) bytes[i] = this.get(head + HEADER_BYTES + i);
      const [text, fields] = this.decoder.decode(bytes).split(FIELDS);
      events.push(fields === undefined ? { level, text } : { level, text, fields: JSON.parse(fields) });
      head = (head + HEADER_BYTES + length) | 0;
    }
    Atomics.store(this.control, HEAD, head);
    const lost = Atomics.load(this.control, LOST);
    if (lost !== this.lostSeen) events.push({ level: 'warn', text: `${lost - this.lostSeen} log lines lost` });
    this.lostSeen = lost;
    return events;
  }

  private get(position: number): number {
    return this.data[position & this.mask];
  }
}

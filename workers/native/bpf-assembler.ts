/**
 * A small assembler for BPF: just the instructions the XDP program needs, with labels.
 *
 * An instruction is 8 bytes: opcode, registers (destination low, source high), 16-bit jump or
 * memory offset, 32-bit immediate. Source: RFC 9669, BPF Instruction Set Architecture.
 */

export const Register = { R0: 0, R1: 1, R2: 2, R3: 3, R4: 4, R5: 5, R6: 6, R7: 7, R8: 8, R9: 9, R10: 10 } as const;
export type Register = (typeof Register)[keyof typeof Register];

/** Bytes loaded from memory, as in RFC 9669 §5: mode MEM, class LDX. */
const LOAD = { 1: 0x71, 2: 0x69, 4: 0x61 } as const;
/** Jumps of class JMP32 comparing with an immediate, unsigned; §4.3. */
const JUMP_IMMEDIATE = { '==': 0x16, '!=': 0x56, '>': 0x26, '>=': 0x36, '<': 0xa6, '<=': 0xb6, '&': 0x46 } as const;

const MOVE_REGISTER = 0xbf;
const MOVE_IMMEDIATE = 0xb7;
const ADD_IMMEDIATE = 0x07;
const TO_BIG_ENDIAN = 0xdc;
const JUMP_GREATER_REGISTER = 0x2d;
const JUMP_ALWAYS = 0x05;
const CALL = 0x85;
const EXIT = 0x95;
const LOAD_IMMEDIATE_64 = 0x18;
/** Adds a register to a 64-bit word in memory, atomically; §5.3. */
const ATOMIC_64 = 0xdb;
const ATOMIC_ADD = 0x00;
/**
 * Source register of a 64-bit immediate load: a map, or the address of an array map's values, by
 * descriptor; §5.4.
 */
const MAP_BY_FD = 1;
const MAP_VALUES_BY_FD = 2;

export class BpfAssembler {
  private readonly code: { opcode: number; registers: number; offset: number; immediate: number; target?: string }[] =
    [];
  private readonly labels = new Map<string, number>();

  /** Names the position of the next instruction, for jumps. */
  label(name: string): this {
    if (this.labels.has(name)) throw new Error(`BPF label ${name} is set twice`);
    this.labels.set(name, this.code.length);
    return this;
  }

  /** `to = from` (64 bits). */
  move(to: Register, from: Register): this {
    return this.emit(MOVE_REGISTER, to, from);
  }

  moveImmediate(to: Register, value: number): this {
    return this.emit(MOVE_IMMEDIATE, to, 0, 0, value);
  }

  add(to: Register, value: number): this {
    return this.emit(ADD_IMMEDIATE, to, 0, 0, value);
  }

  /** `to = *(from + offset)`, zero-extended. */
  load(bytes: 1 | 2 | 4, to: Register, from: Register, offset: number): this {
    return this.emit(LOAD[bytes], to, from, offset);
  }

  /** Converts a loaded word from network byte order to a number. */
  fromNetworkOrder(register: Register, bits: 16 | 32): this {
    return this.emit(TO_BIG_ENDIAN, register, 0, 0, bits);
  }

  /** `to` = the map with this descriptor. */
  loadMap(to: Register, mapFd: number): this {
    return this.emit(LOAD_IMMEDIATE_64, to, MAP_BY_FD, 0, mapFd).emit(0);
  }

  /** `to` = the address of the values of the array map with this descriptor. */
  loadMapValues(to: Register, mapFd: number): this {
    return this.emit(LOAD_IMMEDIATE_64, to, MAP_VALUES_BY_FD, 0, mapFd).emit(0);
  }

  /** `*to += from` (64 bits), atomically. */
  atomicAdd(to: Register, from: Register): this {
    return this.emit(ATOMIC_64, to, from, 0, ATOMIC_ADD);
  }

  /**
   * Jumps if the low 32 bits of `register`, unsigned, compare so with `value`. `&`: if they have a
   * bit in common.
   */
  jumpIf(register: Register, comparison: keyof typeof JUMP_IMMEDIATE, value: number, target: string): this {
    return this.emit(JUMP_IMMEDIATE[comparison], register, 0, 0, value, target);
  }

  /** Jumps if `register > other` (64 bits, unsigned). Used to check packet bounds. */
  jumpIfGreater(register: Register, other: Register, target: string): this {
    return this.emit(JUMP_GREATER_REGISTER, register, other, 0, 0, target);
  }

  jump(target: string): this {
    return this.emit(JUMP_ALWAYS, 0, 0, 0, 0, target);
  }

  /** Calls a kernel helper: arguments in R1…R5, result in R0. */
  call(helper: number): this {
    return this.emit(CALL, 0, 0, 0, helper);
  }

  exit(): this {
    return this.emit(EXIT);
  }

  /** Encodes the instructions and resolves jumps. */
  assemble(): Uint8Array {
    const bytes = new Uint8Array(this.code.length * 8);
    const view = new DataView(bytes.buffer);
    this.code.forEach((instruction, i) => {
      view.setUint8(i * 8, instruction.opcode);
      view.setUint8(i * 8 + 1, instruction.registers);
      view.setInt16(
        i * 8 + 2,
        instruction.target === undefined ? instruction.offset : this.distance(i, instruction.target),
        true,
      );
      view.setInt32(i * 8 + 4, instruction.immediate | 0, true);
    });
    return bytes;
  }

  /** Distance of a jump, which counts from the instruction after it. */
  private distance(from: number, target: string): number {
    const to = this.labels.get(target);
    if (to === undefined) throw new Error(`BPF label ${target} is not set`);
    const distance = to - from - 1;
    if (distance > 32767 || distance < -32768) throw new RangeError(`BPF label ${target} is out of a jump's reach`);
    return distance;
  }

  private emit(opcode: number, to = 0, from = 0, offset = 0, immediate = 0, target?: string): this {
    const instruction = { opcode, registers: (from << 4) | to, offset, immediate };
    this.code.push(target === undefined ? instruction : { ...instruction, target });
    return this;
  }
}

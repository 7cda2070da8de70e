import { strict as assert } from 'node:assert';
import { BpfAssembler, Register } from '../../../workers/native/bpf-assembler.js';

const { R0, R1, R2, R5 } = Register;

/** As `llvm-objdump -d` prints instructions. */
const hex = (bytes: Uint8Array): string =>
  Buffer.from(bytes)
    .toString('hex')
    .replace(/(.{16})(?=.)/g, '$1 ');

describe('the BPF assembler', () => {
  it('encodes instructions as RFC 9669 says', () => {
    const code = new BpfAssembler()
      .load(4, R2, R1, 16)
      .load(2, R5, R2, 12)
      .fromNetworkOrder(R5, 16)
      .add(R2, -2)
      .loadMap(R1, 7)
      .moveImmediate(R0, 2)
      .call(51)
      .exit();
    assert.equal(
      hex(code.assemble()),
      '6112100000000000 69250c0000000000 dc05000010000000 07020000feffffff 1811000007000000 0000000000000000 ' +
        'b700000002000000 8500000033000000 9500000000000000',
    );
  });

  it('counts a jump from the instruction after it, both ways', () => {
    const code = new BpfAssembler().label('back').jumpIf(R5, '>=', 0xffffffff, 'on').jump('back').label('on').exit();
    assert.equal(hex(code.assemble()), '36050100ffffffff 0500feff00000000 9500000000000000');
  });

  it('refuses labels that are missing, set twice or out of reach', () => {
    assert.throws(() => new BpfAssembler().jump('nowhere').assemble(), /nowhere is not set/);
    assert.throws(() => new BpfAssembler().label('a').label('a'), /set twice/);
    const long = new BpfAssembler().jump('end');
    for (let i = 0; i < 32768; i++) long.move(R0, R0);
    assert.throws(() => long.label('end').exit().assemble(), /reach/);
  });
});

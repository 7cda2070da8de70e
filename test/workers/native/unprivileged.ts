/** Does one thing that errors.test.ts expects to fail, and prints the error's message. */

import { Umem } from '../../../workers/drivers/umem.js';
import { BpfAssembler, Register } from '../../../workers/native/bpf-assembler.js';
import { bpfProgramLoad, setOffloads, xskOpen } from '../../../workers/native/index.js';

const ATTEMPTS: Record<string, () => void> = {
  socket: () => xskOpen('eth0 queue 0', new Umem(64, 2048).memory.u8, 2048, 2, 64, false),
  memory: () => xskOpen('eth0 queue 0', new Umem(1024, 2048).memory.u8, 2048, 2, 64, false),
  program: () => bpfProgramLoad(new BpfAssembler().moveImmediate(Register.R0, 2).exit().assemble(), 'eth0'),
  offload: () => setOffloads('lo', { gro: true }),
};

try {
  ATTEMPTS[process.argv[2]]();
  console.log('it did not fail');
} catch (error) {
  console.log((error as Error).message);
}

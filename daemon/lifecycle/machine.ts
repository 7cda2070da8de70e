import { cpu, mem, osInfo } from 'systeminformation';

/**
 * One line about the machine, for the head of a log or a benchmark. It runs programs, so it must
 * not be called while packets wait.
 */
export async function machineLine(): Promise<string> {
  const [processor, memory, system] = await Promise.all([cpu(), mem(), osInfo()]);
  return [
    `${processor.manufacturer} ${processor.brand}, ${processor.cores} cores`,
    `${Math.round(memory.total / 2 ** 30)} GiB`,
    `Linux ${system.kernel}`,
    `Node ${process.version}`,
  ].join(' · ');
}

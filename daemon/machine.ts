import { cpu, mem, osInfo } from 'systeminformation';

/**
 * One line about the machine: at the head of a log and of a benchmark. Asks programs, so never
 * while packets wait.
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

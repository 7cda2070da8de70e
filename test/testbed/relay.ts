/**
 * The TypeScript side of the WAN emulator: starts the relay (relay/relay.c) and sends it line
 * commands.
 */

import type { Program } from './program.js';
import { relayPort } from './topology.js';

/**
 * What one direction of a path does to frames (relay/impairment.h). Absent settings stay as they
 * are.
 */
export interface Impairment {
  readonly delay_ms?: number;
  readonly jitter_ms?: number;
  /** Probabilities, 0 to 1. */
  readonly loss?: number;
  readonly duplicate?: number;
  readonly reorder?: number;
  /** Additional delay of a reordered frame. */
  readonly reorder_ms?: number;
  /** 0: no limit. */
  readonly rate_mbit?: number;
  readonly burst_bytes?: number;
  readonly queue_bytes?: number;
  readonly down?: 0 | 1;
}

/**
 * Frame counts of one direction since the start. Each copy of a frame counts as delivered, cut or
 * failed. The other counts have each frame once.
 */
export interface DirectionStats {
  received: number;
  delivered: number;
  lost: number;
  duplicated: number;
  reordered: number;
  overflowed: number;
  cut: number;
  failed: number;
  /** How long after its due time a frame was delivered: the relay's own error. */
  late_us_max: number;
  late_us_mean: number;
}

interface Answer {
  readonly lines: string[];
  readonly resolve: (lines: string[]) => void;
  readonly reject: (error: Error) => void;
}

export class Relay {
  readonly program: Program;
  private readonly waiting: Answer[] = [];
  private partial = '';

  private constructor(program: Program) {
    this.program = program;
  }

  /** Attaches to a relay that was just started. Returns when its sockets are open. */
  static async attach(program: Program): Promise<Relay> {
    await program.waitFor(/^ready$/m);
    const relay = new Relay(program);
    program.onOutput((text) => relay.read(text));
    void program.exited.then(() => relay.fail(new Error(`the relay ended:\n${program.tail()}`)));
    return relay;
  }

  /**
   * Impairs one direction of a link, between the ports that lead to two nodes. `*` stands for any
   * node.
   */
  async set(link: string, from: string, to: string, impairment: Impairment): Promise<void> {
    const words = Object.entries(impairment).map(([key, value]) => `${key}=${value}`);
    if (words.length > 0) await this.command(`set ${port(link, from)} ${port(link, to)} ${words.join(' ')}`);
  }

  /** Impairs both directions of every path of a link. */
  async setAll(link: string, nodes: readonly string[], impairment: Impairment): Promise<void> {
    for (const from of nodes) for (const to of nodes) if (from !== to) await this.set(link, from, to, impairment);
  }

  /**
   * Lets nothing pass between two nodes, or between one node and all others. Frames in transit are
   * lost.
   */
  async cut(link: string, a: string, b = '*'): Promise<void> {
    await this.command(`cut ${port(link, a)} ${port(link, b)}`);
  }

  async heal(link: string, a: string, b = '*'): Promise<void> {
    await this.command(`heal ${port(link, a)} ${port(link, b)}`);
  }

  /**
   * Counts of one direction. Throws if frames were lost before the relay saw them: the run is then
   * invalid.
   */
  async stats(link: string, from: string, to: string): Promise<DirectionStats> {
    const lines = await this.command('stats');
    const dropped = lines.filter((line) => /kernel_drops=[1-9]/.test(line));
    if (dropped.length > 0) throw new Error(`the relay was too slow for its traffic: ${dropped.join('; ')}`);
    const start = `${port(link, from)} ${port(link, to)} received=`;
    const line = lines.find((candidate) => candidate.startsWith(start));
    if (line === undefined) throw new Error(`the relay has no path from ${from} to ${to} on ${link}`);
    const pairs = line
      .split(' ')
      .slice(2)
      .map((word) => word.split('='));
    return Object.fromEntries(pairs.map(([key, value]) => [key, Number(value)])) as unknown as DirectionStats;
  }

  /** Sends one command (relay/mesh.h). Returns the lines of the answer. */
  async command(text: string): Promise<string[]> {
    return new Promise((resolve, reject) => {
      if (!this.program.running) reject(new Error(`the relay ended:\n${this.program.tail()}`));
      this.waiting.push({ lines: [], resolve, reject });
      this.program.write(`${text}\n`);
    });
  }

  private read(text: string): void {
    const lines = (this.partial + text).split('\n');
    this.partial = lines.pop() ?? '';
    for (const line of lines) {
      const answer = this.waiting[0];
      if (answer === undefined) continue;
      if (line === 'ok') {
        this.waiting.shift();
        answer.resolve(answer.lines);
      } else if (line.startsWith('error: ')) {
        this.waiting.shift();
        answer.reject(new Error(`the relay says: ${line.slice(7)}`));
      } else {
        answer.lines.push(line);
      }
    }
  }

  private fail(error: Error): void {
    for (const answer of this.waiting.splice(0)) answer.reject(error);
  }
}

const port = (link: string, node: string): string => (node === '*' ? '*' : relayPort(link, node));

/**
 * A veth pair for tests: the near end in this process's network namespace, the far end in a
 * namespace of its own, with an address and a neighbour entered by hand, so that programs there
 * reach what a test receives at the near end.
 */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, writeFileSync } from 'node:fs';
import { interfaceFacts } from '../../../workers/native/index.js';
import { OWN_PREFIX, removeNamespaces } from '../../testbed/sweep.js';

let made = 0;

export interface VethOptions {
  /** Queues of the near end; 1 unless told. */
  readonly queues?: number;
  readonly mtu?: number;
}

export class Veth {
  /** Interface name of the near end. */
  readonly near: string;
  /** The far end is called this in its namespace. */
  readonly far = 'far';
  readonly namespace: string;
  /** Address of the far end; `other` is one the far end believes to be at the near end's MAC. */
  readonly address: string;
  readonly other: string;
  private readonly children: ChildProcess[] = [];
  private readonly options: VethOptions;

  constructor(options: VethOptions = {}) {
    const number = made++;
    this.options = options;
    // Removing the namespace removes the pair; the name is one that the testbed's sweep knows.
    this.namespace = `${OWN_PREFIX}veth${number}`;
    this.near = `ct${process.pid.toString(36)}v${number}`;
    this.address = `10.99.${number}.1`;
    this.other = `10.99.${number}.2`;
    ip('netns', 'add', this.namespace);
    try {
      this.create();
      this.inside('ethtool', '-K', this.far, 'tx', 'off', 'tso', 'off', 'gso', 'off');
    } catch (error) {
      this.down();
      throw error;
    }
  }

  /** Deletes the pair and creates it again, by the same names and addresses. */
  recreate(): void {
    ip('link', 'del', this.near);
    this.create();
  }

  private create(): void {
    const { queues = 1, mtu = 1500 } = this.options;
    const size = ['numrxqueues', `${queues}`, 'numtxqueues', `${queues}`];
    const peer = ['peer', 'name', this.far, ...size, 'mtu', `${mtu}`, 'netns', this.namespace];
    ip('link', 'add', this.near, ...size, 'mtu', `${mtu}`, 'type', 'veth', ...peer);
    // IPv6 would send frames of its own from both ends, as soon as they are up.
    const noIpv6 = '/proc/sys/net/ipv6/conf';
    if (existsSync(noIpv6)) {
      writeFileSync(`${noIpv6}/${this.near}/disable_ipv6`, '1');
      this.inside('sh', '-c', `echo 1 > ${noIpv6}/all/disable_ipv6; echo 1 > ${noIpv6}/default/disable_ipv6`);
    }
    ip('link', 'set', this.near, 'up');
    ip('-n', this.namespace, 'link', 'set', this.far, 'up');
    ip('-n', this.namespace, 'addr', 'add', `${this.address}/24`, 'dev', this.far);
    ip('-n', this.namespace, 'neigh', 'replace', this.other, 'lladdr', this.mac, 'dev', this.far, 'nud', 'permanent');
  }

  /** MAC address of the near end. */
  get mac(): string {
    return [...interfaceFacts(this.near).mac].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
  }

  /** Runs a program beside the far end, to its end. */
  inside(...argv: string[]): string {
    return execFileSync('ip', ['netns', 'exec', this.namespace, ...argv], { encoding: 'utf8', stdio: 'pipe' });
  }

  /** Starts a program beside the far end, which runs while this thread is blocked. */
  start(...argv: string[]): Promise<string> {
    const child = spawn('ip', ['netns', 'exec', this.namespace, ...argv], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.children.push(child);
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
    return once(child, 'close').then(() => output);
  }

  down(): void {
    for (const child of this.children) child.kill('SIGKILL');
    removeNamespaces([this.namespace]);
  }
}

function ip(...argv: string[]): void {
  execFileSync('ip', argv, { stdio: 'pipe' });
}

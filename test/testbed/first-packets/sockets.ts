/** Exchanges of client.ts over its own UDP sockets. */

import { createSocket, type Socket } from 'node:dgram';
import { type Ask, DNS_PORT, ECHO_PORT, type Exchange, everyTurn, STUN_PORT } from './exchange.js';
import { answeredDns, answeredStun, askDns, askStun, DnsType } from './messages.js';

const UDP_DATAGRAMS = 10;
const ESTABLISHED_ROUNDS = 5;

interface Request {
  readonly to: string;
  readonly port: number;
  readonly bytes: Buffer;
}

interface Replies {
  /** Milliseconds from the first request to each reply, by request; `NaN` if no reply came. */
  readonly ms: readonly number[];
  /** Requests in the order of their replies. */
  readonly order: readonly number[];
}

function bound(address: string): Promise<Socket> {
  const socket = createSocket('udp4');
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.bind(0, address, () => resolve(socket));
  });
}

/** Sends all requests at once. `answered` returns the request that a reply belongs to, or -1. */
async function exchange(
  socket: Socket,
  requests: readonly Request[],
  timeoutMs: number,
  answered: (reply: Buffer) => number,
): Promise<Replies> {
  const ms = new Array<number>(requests.length).fill(Number.NaN);
  const order: number[] = [];
  await new Promise<void>((resolve) => {
    const start = performance.now();
    const timer = setTimeout(resolve, timeoutMs);
    socket.on('message', (reply) => {
      const n = answered(reply);
      if (n < 0 || n >= requests.length || !Number.isNaN(ms[n])) return;
      ms[n] = performance.now() - start;
      order.push(n);
      if (order.length < requests.length) return;
      clearTimeout(timer);
      resolve();
    });
    for (const { to, port, bytes } of requests) socket.send(bytes, port, to);
  });
  socket.removeAllListeners('message');
  return { ms, order };
}

function outcome(server: number, { ms, order }: Replies): Exchange {
  const first = Math.min(...ms.filter((value) => !Number.isNaN(value)));
  return {
    server,
    sent: ms.length,
    lost: ms.length - order.length,
    ...(Number.isFinite(first) ? { ms: first } : {}),
    reordered: order.filter((n, i) => i > 0 && n < order[i - 1]).length,
  };
}

/** What glibc does to resolve a name: asks for A and AAAA, back to back, from one socket. */
export function dns(ask: Ask): Promise<Exchange[]> {
  return everyTurn(ask, async (server, to, source) => {
    const socket = await bound(source);
    const requests = [DnsType.A, DnsType.AAAA].map((type, id) => ({
      to,
      port: DNS_PORT,
      bytes: askDns(id, type),
    }));
    const replies = await exchange(socket, requests, ask.timeout_ms, answeredDns);
    socket.close();
    return [outcome(server, replies)];
  });
}

/** What WebRTC does: asks two servers, from one socket, which endpoint they see. */
export function stun(ask: Ask): Promise<Exchange[]> {
  return everyTurn(ask, async (server, to, source) => {
    const socket = await bound(source);
    const endpoints: string[] = [];
    const second = ask.servers[(server + 1) % ask.servers.length];
    const requests = [to, second].map((address, id) => ({ to: address, port: STUN_PORT, bytes: askStun(id) }));
    const replies = await exchange(socket, requests, ask.timeout_ms, (reply) => {
      const answer = answeredStun(reply);
      if (answer === null) return -1;
      endpoints[answer.id] = answer.endpoint;
      return answer.id;
    });
    socket.close();
    // The time and the baseline are those of the server that was asked first.
    const { sent, lost } = outcome(server, replies);
    const split = lost === 0 ? { split: endpoints[0] !== endpoints[1] } : {};
    return [{ server, sent, lost, ...(Number.isNaN(replies.ms[0]) ? {} : { ms: replies.ms[0] }), ...split }];
  });
}

/** Sends numbered datagrams, back to back, that the server echoes. */
export function udp(ask: Ask): Promise<Exchange[]> {
  return everyTurn(ask, async (server, to, source) => {
    const socket = await bound(source);
    const requests = Array.from({ length: UDP_DATAGRAMS }, (_, n) => ({
      to,
      port: ECHO_PORT,
      bytes: Buffer.from([n]),
    }));
    const replies = await exchange(socket, requests, ask.timeout_ms, (reply) => reply[0]);
    socket.close();
    return [outcome(server, replies)];
  });
}

/** Round trips of a flow that all sites know: the baseline for first packets. */
export function established(ask: Ask): Promise<Exchange[]> {
  return everyTurn(ask, async (server, to, source) => {
    const socket = await bound(source);
    const echo = async (): Promise<number> => {
      const request = { to, port: ECHO_PORT, bytes: Buffer.from([0]) };
      return (await exchange(socket, [request], ask.timeout_ms, () => 0)).ms[0];
    };
    let tries = 1;
    while (Number.isNaN(await echo())) if (++tries > 10) throw new Error(`${to} does not answer`);
    // The first reply may have waited for the state. Later ones do not.
    const ms: number[] = [];
    for (let round = 0; round < ESTABLISHED_ROUNDS; round++) ms.push(await echo());
    socket.close();
    ms.sort((a, b) => a - b);
    return [{ server, sent: ms.length, lost: 0, ms: ms[ms.length >> 1] }];
  });
}

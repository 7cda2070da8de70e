/**
 * A client for etcd's JSON gateway (v3, served by etcd itself beside gRPC), as far as membership
 * needs it. Keys and values are base64; 64-bit numbers are text.
 */

import { setTimeout as sleep } from 'node:timers/promises';

export interface KeyValue {
  readonly key: string;
  readonly value: Uint8Array;
  /** Revision of the last change; in a comparison, `0` means that the key does not exist. */
  readonly revision: number;
}

interface Contents {
  /** Revision of the store at the time of the read. */
  readonly revision: number;
  /** Id of the etcd cluster. Another etcd cluster has another history. */
  readonly clusterId: string;
  readonly entries: readonly KeyValue[];
}

/** Holds if the key was last changed at `revision`; 0: if the key does not exist. */
export interface Condition {
  readonly key: string;
  readonly revision: number;
}

export type Operation =
  | { readonly put: string; readonly value: string | Uint8Array; readonly lease?: string }
  | { readonly delete: string };

type Change = {
  readonly revision: number;
  readonly clusterId: string;
  readonly entries: readonly (KeyValue | { readonly gone: string })[];
};

/** etcd answered with a refusal. */
export class EtcdError extends Error {}

/** The revision to watch from was compacted away. The caller must read everything again. */
export class CompactedError extends Error {}

/** Upper limit for a line of a watch. A line with the records of all members is far shorter. */
const LINE_CHARACTERS_MAX = 16 * 1024 * 1024;

/** HTTP codes of etcd's gateway while it cannot serve: timeout, too many requests, cancelled. */
const BUSY = [408, 429, 499];

interface WireKeyValue {
  readonly key: string;
  readonly value?: string;
  readonly mod_revision?: string;
}

interface WireHeader {
  readonly header?: { readonly revision?: string; readonly cluster_id?: string };
}

interface WatchAnswer {
  readonly error?: { readonly message?: string };
  readonly result?: WireHeader & {
    readonly created?: boolean;
    readonly canceled?: boolean;
    readonly compact_revision?: string;
    readonly events?: readonly { readonly type?: string; readonly kv: WireKeyValue }[];
  };
}

const encode = (value: string | Uint8Array): string => Buffer.from(value as string).toString('base64');
const decode = (text: string | undefined): string => Buffer.from(text ?? '', 'base64').toString();

/**
 * The end of the range of keys that begin with `prefix`. The last byte of `prefix` must be below
 * 255.
 */
function rangeEnd(prefix: string): string {
  const bytes = Buffer.from(prefix);
  bytes[bytes.length - 1]++;
  return bytes.toString('base64');
}

export class EtcdClient {
  private readonly endpoints: readonly string[];
  private readonly timeoutMs: number;
  /** Index of the endpoint that answered last. */
  private current = 0;

  constructor(endpoints: readonly string[], timeoutMs: number) {
    this.endpoints = endpoints.map((endpoint) => endpoint.replace(/\/+$/, ''));
    this.timeoutMs = timeoutMs;
  }

  /** Reads all keys that begin with `prefix`. */
  async read(prefix: string): Promise<Contents> {
    const answer = await this.call<WireHeader & { kvs?: readonly WireKeyValue[] }>('kv/range', {
      key: encode(prefix),
      range_end: rangeEnd(prefix),
    });
    return {
      revision: revisionOf(answer),
      clusterId: answer.header?.cluster_id ?? '',
      entries: (answer.kvs ?? []).map(keyValue),
    };
  }

  /** Makes all changes if all conditions hold. Returns whether they held. */
  async change(conditions: readonly Condition[], operations: readonly Operation[]): Promise<boolean> {
    const answer = await this.call<{ succeeded?: boolean }>('kv/txn', {
      compare: conditions.map(({ key, revision }) => ({
        key: encode(key),
        target: 'MOD',
        result: 'EQUAL',
        mod_revision: String(revision),
      })),
      success: operations.map((operation) =>
        'put' in operation
          ? {
              request_put: {
                key: encode(operation.put),
                value: encode(operation.value),
                ...(operation.lease && { lease: operation.lease }),
              },
            }
          : { request_delete_range: { key: encode(operation.delete) } },
      ),
    });
    return answer.succeeded === true;
  }

  /** Makes a new lease and returns its id. */
  async grant(ttlS: number): Promise<string> {
    const { ID } = await this.call<{ ID?: string }>('lease/grant', { TTL: String(ttlS) });
    if (ID === undefined) throw new EtcdError('etcd granted no lease');
    return ID;
  }

  /** Renews a lease. Returns whether it still existed. */
  async keepAlive(lease: string): Promise<boolean> {
    const answer = await this.call<{ result?: { TTL?: string } }>('lease/keepalive', { ID: lease });
    return Number(answer.result?.TTL ?? 0) > 0;
  }

  /** Revokes a lease. etcd deletes every key that is attached to it. */
  async revoke(lease: string): Promise<void> {
    await this.call('lease/revoke', { ID: lease });
  }

  /**
   * Yields changes of the keys that begin with `prefix`, from `revision` on. Always ends with an
   * error: a `CompactedError`, or the loss of the connection.
   */
  async *watch(prefix: string, revision: number, signal: AbortSignal): AsyncGenerator<Change> {
    const request = {
      create_request: { key: encode(prefix), range_end: rangeEnd(prefix), start_revision: String(revision) },
    };
    const response = await fetch(`${this.endpoints[this.current]}/v3/watch`, {
      method: 'POST',
      body: JSON.stringify(request),
      signal,
    });
    if (!response.ok || response.body === null) throw new EtcdError(`watch: ${await errorText(response)}`);
    for await (const line of lines(response.body)) {
      const { error, result } = JSON.parse(line) as WatchAnswer;
      if (error !== undefined) throw new EtcdError(`watch: ${error.message}`);
      if (result?.compact_revision !== undefined && result.canceled)
        throw new CompactedError(`compacted at revision ${result.compact_revision}`);
      if (result?.canceled) throw new EtcdError('the watch was cancelled');
      if (result?.events === undefined) continue;
      yield {
        revision: revisionOf(result),
        clusterId: result.header?.cluster_id ?? '',
        entries: result.events.map(({ type, kv }) => (type === 'DELETE' ? { gone: decode(kv.key) } : keyValue(kv))),
      };
    }
    throw new Error('the watch ended');
  }

  /**
   * Asks the endpoints in turn, starting with the one that answered last. Throws the last
   * endpoint's error.
   */
  private async call<T>(path: string, body: object): Promise<T> {
    let last: unknown;
    for (let i = 0; i < this.endpoints.length; i++) {
      const endpoint = this.endpoints[this.current];
      try {
        return await this.ask<T>(`${endpoint}/v3/${path}`, body);
      } catch (error) {
        if (error instanceof EtcdError) throw error;
        last = error;
        this.current = (this.current + 1) % this.endpoints.length;
      }
    }
    throw new Error(reason(last), { cause: last });
  }

  private async ask<T>(url: string, body: object): Promise<T> {
    const signal = AbortSignal.timeout(this.timeoutMs);
    const response = await fetch(url, { method: 'POST', body: JSON.stringify(body), signal });
    if (response.ok) return (await response.json()) as T;
    const text = await errorText(response);
    // This member of etcd has no leader or is busy. Another one may answer.
    if (response.status >= 500 || BUSY.includes(response.status)) throw new Error(text);
    throw new EtcdError(text);
  }
}

/**
 * Why a call failed, in one line. This is the innermost cause, because `fetch` only says that it
 * failed.
 */
export function reason(error: unknown): string {
  const inner: unknown = error instanceof AggregateError ? error.errors[0] : (error as { cause?: unknown })?.cause;
  if (inner !== undefined) return reason(inner);
  return error instanceof Error ? error.message : String(error);
}

const BACK_OFF_MS_MAX = 5000;

interface BackOffOptions {
  /** Whether the wait keeps the process running. */
  readonly ref?: boolean;
  readonly longestMs?: number;
}

/**
 * Waits between two attempts. The wait grows, and is random so that members do not retry together.
 */
export function backOff(
  attempt: number,
  signal: AbortSignal,
  { ref = false, longestMs = BACK_OFF_MS_MAX }: BackOffOptions = {},
): Promise<void> {
  const longest = Math.min(BACK_OFF_MS_MAX, longestMs, 250 * 2 ** Math.min(attempt, 10));
  return sleep(longest * (0.5 + Math.random() / 2), undefined, { signal, ref });
}

function revisionOf({ header }: WireHeader): number {
  const revision = Number(header?.revision);
  if (!Number.isSafeInteger(revision)) throw new EtcdError(`etcd names no revision: ${header?.revision}`);
  return revision;
}

function keyValue({ key, value, mod_revision }: WireKeyValue): KeyValue {
  return { key: decode(key), value: Buffer.from(value ?? '', 'base64'), revision: Number(mod_revision ?? 0) };
}

async function errorText(response: Response): Promise<string> {
  const text = await response.text();
  try {
    const { error, message } = JSON.parse(text) as { error?: string; message?: string };
    return message ?? error ?? text;
  } catch {
    return `HTTP ${response.status}: ${text.slice(0, 200)}`;
  }
}

async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const piece of body as unknown as AsyncIterable<Uint8Array>) {
    rest += decoder.decode(piece, { stream: true });
    if (rest.length > LINE_CHARACTERS_MAX) throw new EtcdError('a line of the watch is too long');
    const parts = rest.split('\n');
    rest = parts.pop() ?? '';
    for (const part of parts) if (part.trim() !== '') yield part;
  }
}

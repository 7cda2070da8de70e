/**
 * The DNS and STUN messages of first-packets/: only the parts that a question and its answer need.
 */

const NAME = Buffer.from('\x05first\x07packets\x04test\x00', 'latin1');
const DNS_HEADER_BYTES = 12;

/** Type of a question. */
export const DnsType = { A: 1, AAAA: 28 } as const;

export function askDns(id: number, type: number): Buffer {
  const header = Buffer.alloc(DNS_HEADER_BYTES);
  header.writeUInt16BE(id, 0);
  header.writeUInt16BE(0x0100, 2); // recursion desired
  header.writeUInt16BE(1, 4); // questions
  return Buffer.concat([header, NAME, Buffer.from([0, type, 0, 1])]);
}

/** The answer to a question for A or AAAA; `null` to anything else. */
export function answerDns(question: Buffer): Buffer | null {
  const end = DNS_HEADER_BYTES + NAME.length + 4;
  if (question.length < end) return null;
  const type = question.readUInt16BE(end - 4);
  if (type !== DnsType.A && type !== DnsType.AAAA) return null;
  const header = Buffer.from(question.subarray(0, DNS_HEADER_BYTES));
  header.writeUInt16BE(0x8180, 2); // a response, recursion available
  header.writeUInt16BE(1, 6); // answers
  const address = Buffer.alloc(type === DnsType.A ? 4 : 16, 1);
  // A pointer to the name, type, class IN, a TTL of one minute, the address.
  const record = Buffer.from([0xc0, DNS_HEADER_BYTES, 0, type, 0, 1, 0, 0, 0, 60, 0, address.length]);
  return Buffer.concat([header, question.subarray(DNS_HEADER_BYTES, end), record, address]);
}

/** The identifier of the question that an answer belongs to; -1 if it is not an answer. */
export function answeredDns(answer: Buffer): number {
  if (answer.length < DNS_HEADER_BYTES || answer.readUInt16BE(2) !== 0x8180 || answer.readUInt16BE(6) !== 1) return -1;
  return answer.readUInt16BE(0);
}

const STUN_HEADER_BYTES = 20;
const MAGIC_COOKIE = 0x2112a442;
const BINDING_REQUEST = 0x0001;
const BINDING_RESPONSE = 0x0101;
const XOR_MAPPED_ADDRESS = 0x0020;

/** A binding request. `id`: its transaction. */
export function askStun(id: number): Buffer {
  const request = Buffer.alloc(STUN_HEADER_BYTES);
  request.writeUInt16BE(BINDING_REQUEST, 0);
  request.writeUInt32BE(MAGIC_COOKIE, 4);
  request.writeUInt32BE(id, 16);
  return request;
}

/** The response to a binding request; `null` to anything else. */
export function answerStun(request: Buffer, address: string, port: number): Buffer | null {
  if (request.length < STUN_HEADER_BYTES || request.readUInt16BE(0) !== BINDING_REQUEST) return null;
  const response = Buffer.alloc(STUN_HEADER_BYTES + 12);
  request.copy(response, 0, 0, STUN_HEADER_BYTES);
  response.writeUInt16BE(BINDING_RESPONSE, 0);
  response.writeUInt16BE(12, 2);
  response.writeUInt16BE(XOR_MAPPED_ADDRESS, 20);
  response.writeUInt16BE(8, 22);
  response.writeUInt16BE(1, 24); // IPv4
  response.writeUInt16BE(port ^ (MAGIC_COOKIE >>> 16), 26);
  const octets = Buffer.from(address.split('.').map(Number));
  response.writeUInt32BE((octets.readUInt32BE(0) ^ MAGIC_COOKIE) >>> 0, 28);
  return response;
}

/**
 * The transaction of a binding response, and the endpoint in it as sent; `null` if it is not a
 * response.
 */
export function answeredStun(response: Buffer): { id: number; endpoint: string } | null {
  if (response.length < STUN_HEADER_BYTES + 12 || response.readUInt16BE(0) !== BINDING_RESPONSE) return null;
  return { id: response.readUInt32BE(16), endpoint: response.toString('hex', 26, 32) };
}

/**
 * A web server for the testbed's nodes. `node server.js PORT [HOST]` answers `/BYTES/SEED`
 * (body.ts) and writes `ready` when it listens. It listens on all addresses, IPv4 only unless HOST
 * is `::`.
 */

import { createServer } from 'node:http';
import { bodyOf } from './body.js';

const server = createServer((request, response) => {
  const body = bodyOf(request.url ?? '');
  response.writeHead(body === null ? 404 : 200, { 'content-type': 'application/octet-stream' });
  response.end(body ?? 'no such body');
});
server.listen({ port: Number(process.argv[2]), host: process.argv[3] ?? '0.0.0.0', backlog: 1024 }, () =>
  console.log('ready'),
);

import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { loadConfig } from '../../daemon/config.js';
import { PcapWriter } from '../../workers/drivers/pcap-file.js';
import { frame } from '../workers/support/frames.js';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const DAEMON = join(ROOT, 'dist/daemon/constellationd.js');
const WAIT_MS_MAX = 20_000;

/** A middlebox as text, with parts of it replaced. */
function own(parts: Record<string, string> = {}): string {
  const { name = "'guard'", options = '{}', counters = '{}', state = '() => ({})', open = '() => () => {}' } = parts;
  return `import { counter, defineMiddlebox, option } from 'constellation';
export default defineMiddlebox({
  name: ${name},
  help: 'Guards.',
  options: ${options},
  counters: ${counters},
  state: ${state},
  open: ${open},
});
`;
}

describe("a user's own middlebox", () => {
  let folder = '';
  let files = 0;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'constellation-own-'));
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(ROOT, join(folder, 'node_modules/constellation'));
    const packets = new PcapWriter(join(folder, 'in.pcap'), false);
    const bytes = Buffer.from(frame('udp 10.0.0.5:1 > 8.8.8.8:2 to 02:00:00:00:00:01'));
    packets.write(bytes, 0, bytes.length, 0, 0);
    packets.close();
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** Files are imported once in a process, so each has a name of its own. */
  function file(text: string): string {
    const name = `guard-${files++}.mjs`;
    writeFileSync(join(folder, name), text);
    return `./${name}`;
  }

  function config(entries: string): string {
    const path = join(folder, 'site.yaml');
    writeFileSync(
      path,
      `cluster: { id: own, self: a, members: [{ name: a, id: 1, address: 127.0.0.1 }] }
transport: { kind: unicast, port: 47411 }
packet_io: { driver: pcap }
ports:
  inside: { in: ./in.pcap, out: ./out.pcap, mac: 02:00:00:00:00:01, next_hop: 02:00:00:00:00:02 }
  outside: { mac: 02:00:00:00:00:03, next_hop: 02:00:00:00:00:04 }
admin: { socket: ./a.sock }
middleboxes:
${entries}
`,
    );
    return path;
  }

  async function errors(entries: string): Promise<string> {
    const { errors = [] } = await loadConfig(config(entries));
    return errors.join('\n').replaceAll(folder, '').replaceAll(pathToFileURL(folder).href, 'file://');
  }

  it('is named by its path, and its options are checked as it declares them', async () => {
    const options = `{
      outside: option.port('port outside'),
      ports: option.counts('ports to knock at', [7001, 7002], { max: 65535 }),
      seconds: option.seconds('how long', 60),
    }`;
    const path = file(own({ options }));
    const { config: right } = await loadConfig(config(`  - ${path}: { outside: outside, ports: [1, 2] }`));
    assert.deepEqual(right?.middleboxes, [
      {
        name: 'guard',
        module: pathToFileURL(join(folder, path)).href,
        options: { outside: 1, ports: [1, 2], seconds: 60 },
      },
    ]);
    assert.equal(
      await errors(`  - ${path}: { outside: outsid, ports: [1, 70000], second: 3 }`),
      [
        `/site.yaml:9:31: middleboxes[0][${path}].outside: no port is called outsid; did you mean "outside"?`,
        `/site.yaml:9:50: middleboxes[0][${path}].ports[1]: must be at most 65535, not 70000`,
        `/site.yaml:9:58: middleboxes[0][${path}].second: unknown setting "second"; did you mean "seconds"?`,
      ].join('\n'),
    );
  });

  const broken: readonly [string, string, RegExp][] = [
    ['is not there', '', /: there is no file .*\/nowhere\.mjs$/],
    [
      'has a syntax error',
      'export default {',
      /guard-\d+\.mjs cannot be loaded: .*guard-\d+\.mjs:1: SyntaxError: Unexpected/,
    ],
    [
      'throws when it is loaded',
      "\nthrow new Error('not today');",
      /cannot be loaded: .*guard-\d+\.mjs:2:7: Error: not today$/,
    ],
    ['needs what is not there', "import 'left-behind';", /cannot be loaded: .*Cannot find package 'left-behind'/],
    ['exports nothing', 'export const guard = 1;', /exports no middlebox as default: there is no default export$/],
    ['exports something else', 'export default () => {};', /exports no middlebox as default: it is a function$/],
    ['has a name that is none', own({ name: "'Gu ard'" }), /its name "Gu ard" is not a lower-case word$/],
    ['has no open', own({ open: 'undefined' }), /exports no middlebox as default: its open is no function$/],
    [
      'has an unknown kind of option',
      own({ options: "{ a: { kind: 'colour', help: '' } }" }),
      /its option a is none of option\.port,/,
    ],
    ['throws when it declares its state', own({ state: "() => { throw new RangeError('too many'); }" }), /: too many$/],
    [
      'declares no state objects',
      own({ state: '() => ({ hits: 1 })' }),
      /state\(\)\.hits is no state object's definition/,
    ],
    [
      'declares other state every time',
      `let n = 0;\n${own({ state: "() => ({ ['hits' + n++]: counter() })" })}`,
      /state\(\) declares something else when it is asked again/,
    ],
  ];
  for (const [what, text, message] of broken)
    it(`that ${what} is an error with its place`, async () => {
      const path = text === '' ? './nowhere.mjs' : file(text);
      const found = await errors(`  - ${path}: {}`);
      assert.equal(found.split('\n').length, 1, found);
      assert.ok(found.startsWith(`/site.yaml:9:5: middleboxes[0][${path}]: `), found);
      assert.match(found, message);
    });

  it('that cannot find the API is told how', async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), 'constellation-elsewhere-'));
    try {
      writeFileSync(join(elsewhere, 'guard.mjs'), own());
      assert.match(
        await errors(`  - ${elsewhere}/guard.mjs: {}`),
        /Cannot find package 'constellation' .*; link this installation there: mkdir -p node_modules && ln -s \S+ node_modules\/constellation$/,
      );
    } finally {
      rmSync(elsewhere, { recursive: true });
    }
  });

  it('has a name that no other middlebox of the chain has', async () => {
    const [one, two] = [file(own()), file(own())];
    assert.equal(
      await errors(`  - ${one}: {}\n  - ${two}: {}`),
      '/site.yaml:10:5: middleboxes[1]: guard is already run by middleboxes[0]; its state and counters carry its name, so it can run once',
    );
    const nat = file(own({ name: "'nat'" }));
    assert.match(
      await errors(`  - nat: { inside: inside, outside: outside, external: [203.0.113.1] }\n  - ${nat}: {}`),
      /^\/site\.yaml:10:5: middleboxes\[1\]: nat is already run by middleboxes\[0\]/,
    );
  });

  it('that throws when it is opened keeps the instance from starting, by name', () => {
    const path = config(`  - ${file(own({ open: "() => { throw new Error('no room'); }" }))}: {}`);
    const { status, stderr } = spawnSync(process.execPath, [DAEMON, '-c', path], {
      encoding: 'utf8',
      timeout: WAIT_MS_MAX,
    });
    assert.equal(status, 70, stderr);
    assert.match(stderr, /thread worker-0 did not start: middlebox guard could not be opened: no room/);
  });

  it('that throws on packets has its worker started again, and is named with its place', async () => {
    const guard = file(own({ open: "() => () => {\n    throw new Error('boom');\n  }" }));
    const daemon = spawn(process.execPath, [DAEMON, '-c', config(`  - ${guard}: {}`)], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    try {
      const said = await read(daemon, /starting thread worker-0 again/);
      assert.match(said, /middlebox guard failed on a batch of 1 packets: boom/);
      assert.ok(said.includes(`${guard.slice(2)}:9`), said);
    } finally {
      const ended = new Promise((resolve) => daemon.once('exit', resolve));
      daemon.kill('SIGTERM');
      await ended;
    }
  });
});

/** Reads what a program says until `pattern` comes. */
function read(program: ChildProcess, pattern: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let said = '';
    const timer = setTimeout(() => reject(new Error(`${pattern} did not come:\n${said}`)), WAIT_MS_MAX);
    program.stderr?.on('data', (chunk) => {
      said += chunk;
      if (!pattern.test(said)) return;
      clearTimeout(timer);
      resolve(said);
    });
  });
}

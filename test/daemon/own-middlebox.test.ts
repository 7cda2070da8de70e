import { strict as assert } from 'node:assert';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { askJson } from '../../daemon/admin/client.js';
import { loadConfig } from '../../daemon/config/config.js';
import { PcapWriter } from '../../workers/drivers/pcap-file.js';
import { freePort } from '../support/ports.js';
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
  let port = 0;

  before(async () => {
    port = await freePort();
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

  function config(entries: string, { self = 'a', more = '' } = {}): string {
    const path = join(folder, self === 'a' && more === '' ? 'site.yaml' : `${self}-${files++}.yaml`);
    writeFileSync(
      path,
      `cluster: { id: own, self: ${self}, members: [{ name: a, id: 1, address: 127.0.0.1 }, { name: b, id: 2, address: 127.0.0.2 }] }
transport: { kind: unicast, port: ${port} }
packet_io: { driver: pcap }
ports:
  inside: { in: ./in.pcap, out: ./out-${self}.pcap, mac: 02:00:00:00:00:01, next_hop: 02:00:00:00:00:02 }
  outside: { mac: 02:00:00:00:00:03, next_hop: 02:00:00:00:00:04 }
admin: { socket: ./${self}.sock }
middleboxes:
${entries}
${more}
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
      '/site.yaml:10:5: middleboxes[1]: guard is already run by middleboxes[0]; its state and counters carry its name: give this one another, by name: beside it',
    );
    const nat = file(own({ name: "'nat'" }));
    assert.match(
      await errors(`  - nat: { inside: inside, outside: outside, external: [203.0.113.1] }\n  - ${nat}: {}`),
      /^\/site\.yaml:10:5: middleboxes\[1\]: nat is already run by middleboxes\[0\]/,
    );
  });

  it('stands in the chain twice, by two names, each with its own state and counters', async () => {
    const state = '(_options, shared) => ({ seen: counter({ ...shared }) })';
    const open =
      '({ state, counters, batch }) => () => { batch.countMany(counters.packets, batch.count); state.seen.add(batch.count); }';
    const guard = file(own({ state, open, counters: "{ packets: 'packets seen' }" }));
    const entries = `  - ${guard}: {}\n    name: outer\n  - ${guard}: {}\n    name: inner`;
    const path = config(entries, { more: '' });
    const { config: right, errors: wrong } = await loadConfig(path);
    assert.deepEqual(wrong, undefined);
    assert.deepEqual(
      right?.middleboxes.map(({ name, as }) => [name, as]),
      [
        ['guard', 'outer'],
        ['guard', 'inner'],
      ],
    );
    await running([path], async ([daemon]) => {
      assert.match(await daemon.says(/is ready/), /state: outer\.seen, inner\.seen;/);
      const counters = await askJson(join(folder, 'a.sock'), 'show counters *_packets', { silence_ms: WAIT_MS_MAX });
      const names = (counters as { name: string }[]).map(({ name }) => name);
      assert.ok(names.includes('outer_packets') && names.includes('inner_packets'), names.join());
    });
    assert.match(
      await errors(`  - ${guard}: {}\n    name: Outer`),
      /middleboxes\[0\]\.name: expected a lower-case word/,
    );
    assert.match(
      await errors(`  - ${guard}: {}\n    name: x\n  - ${guard}: {}\n    name: x`),
      /middleboxes\[1\]: x is already run by middleboxes\[0\]/,
    );
  });

  it('that rewrites addresses says its sides where another watches them', async () => {
    const rewriting = own().replace('  options:', "  addresses: 'rewrites',\n  options:");
    const silent = file(rewriting);
    assert.match(
      await errors(`  - ${silent}: {}\n  - idps: {}`),
      /\[1\]\.idps: idps has to see both directions of a connection by the same addresses, and \.\/guard-\d+\.mjs rewrites them without/,
    );
    const sides = (body: string) => file(rewriting.replace('  options:', `  sides: ${body},\n  options:`));
    assert.equal(await errors(`  - ${sides('() => ({ near: [0], far: [1] })')}: {}\n  - idps: {}`), '');
    assert.match(
      await errors(`  - ${sides("() => assert.fail('neither')")}: {}`),
      /middleboxes\[0\].*: sides\(\): assert is not defined$/,
    );
    assert.match(
      await errors(`  - ${sides('() => ({ near: 0 })')}: {}`),
      /sides\(\) gives no \{ near, far \} of lists of ports: \{"near":0\}$/,
    );
  });

  it('that declares the state of another, or throws while declaring, is an error of its entry', async () => {
    const twice = file(own({ state: '() => { const one = counter(); return { a: one, a: one, b: one }; }' }));
    const found = await errors(`  - ${twice}: {}`);
    assert.match(found, /middleboxes\[0\].*: state\(\)\.b is the same object as state\(\)\.a/);
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
    await running([config(`  - ${guard}: {}`)], async ([daemon]) => {
      const said = await daemon.says(/starting thread worker-0 again/);
      assert.match(said, /middlebox guard failed on a batch of 1 packets: boom/);
      assert.ok(said.includes(`${guard.slice(2)}:9`), said);
    });
  });

  it('counts at members that agree, and members with another seed refuse each other and say so', async () => {
    const guard = file(
      `import { countMin } from 'constellation';\n${own({
        state: '(_options, shared) => ({ sketch: countMin({ ...shared, epsilon: 0.1 }) })',
        open: `({ every, log, state }) => {
          every(0.2, (now) => log.info('still here', { sketch: state.sketch.describe(now), seen: true }));
          return () => {};
        }`,
      })}`,
    );
    const entry = `  - ${guard}: {}`;
    const sites = [
      config(entry, { self: 'a', more: 'state: { sketch_seed: 0123456789abcdef }' }),
      config(entry, { self: 'b', more: 'state: { sketch_seed: fedcba9876543210 }' }),
    ];
    await running(sites, async (daemons) => {
      for (const daemon of daemons)
        await daemon.says(/receive: a member has other state objects: .* its messages are refused/);
    });
    await running(
      [sites[0], config(entry, { self: 'b', more: 'state: { sketch_seed: 0123456789abcdef }' })],
      async (daemons) => {
        for (const daemon of daemons) {
          const said = await daemon.says(/(?:still here[\s\S]*){8}/);
          assert.ok(!/other state objects/.test(said));
          const line = said.split('\n').find((text) => text.includes('still here')) ?? '';
          const { msg, guard } = JSON.parse(line);
          assert.equal(msg, 'worker-0: guard: still here');
          assert.equal(guard.seen, true);
          assert.equal(typeof guard.sketch, 'object');
        }
      },
    );
  });
});

/** A program under way, and what it has said so far. */
class Running {
  readonly program: ChildProcess;
  private said = '';

  constructor(config: string) {
    const { JOURNAL_STREAM: _, ...env } = process.env;
    this.program = spawn(process.execPath, [DAEMON, '-c', config], { stdio: ['ignore', 'ignore', 'pipe'], env });
    this.program.stderr?.on('data', (chunk) => {
      this.said += chunk;
    });
  }

  /** All it said, once that has `pattern` in it. */
  async says(pattern: RegExp): Promise<string> {
    const end = Date.now() + WAIT_MS_MAX;
    while (!pattern.test(this.said)) {
      if (Date.now() > end) throw new Error(`${pattern} did not come:\n${this.said}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return this.said;
  }

  async stop(): Promise<void> {
    if (this.program.exitCode !== null) return;
    const ended = new Promise((resolve) => this.program.once('exit', resolve));
    this.program.kill('SIGTERM');
    await ended;
  }
}

async function running(
  configs: readonly string[],
  body: (daemons: readonly Running[]) => Promise<void>,
): Promise<void> {
  const daemons = configs.map((config) => new Running(config));
  try {
    await body(daemons);
  } finally {
    await Promise.all(daemons.map((daemon) => daemon.stop()));
  }
}

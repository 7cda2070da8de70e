import { strict as assert } from 'node:assert';
import { changesBetween, nameOfChange, shownValue, withValue } from '../../conf/changes.js';
import { parseConfig } from '../../daemon/config/config.js';
import { changeOf } from '../../options/option.js';
import { fakeFirewall, fakeNat, RIGHT } from './fake-nat.js';

const known = { middleboxes: [fakeNat, fakeFirewall], cores: [0, 1] };

function written(text: string) {
  const { config, errors } = parseConfig('/etc/c/site.yaml', text, known);
  assert.deepEqual(errors, undefined);
  return config?.written ?? assert.fail();
}

/** What differs if a part of the right configuration is another, or a section is added. */
function changes(after: string, before = RIGHT) {
  const found = changesBetween(written(before), written(after), () => fakeNat.options);
  return found.changes.map((change) => [
    nameOfChange(change),
    shownValue(change.option, change.from),
    shownValue(change.option, change.to),
    changeOf(change.option).kind,
  ]);
}

describe('changes between two configurations', () => {
  it('are none between one and itself, however numbers and defaults are written', () => {
    assert.deepEqual(changes(RIGHT), []);
    assert.deepEqual(changes(`${RIGHT}replication: { keepalive_ms: 0.2s }\nlog: {}\nmode: route\n`), []);
    const { unchanged } = changesBetween(written(RIGHT), written(RIGHT), () => fakeNat.options);
    assert.ok(unchanged > 50);
  });

  it('are named with both values and the kind of the option', () => {
    assert.deepEqual(changes(`${RIGHT}replication: { keepalive_ms: 1s, log_bytes: 64KiB }\nlog: { level: warn }\n`), [
      ['replication.keepalive_ms', '200ms', '1s', 'hot'],
      ['replication.log_bytes', '4MiB', '64KiB', 'rolling'],
      ['log.level', 'info', 'warn', 'hot'],
    ]);
    assert.deepEqual(changes(RIGHT.replace('[203.0.113.1]', '[203.0.113.1, 203.0.113.9], timeout: 10m')), [
      ['middleboxes[0].nat.external', '[203.0.113.1]', '[203.0.113.1, 203.0.113.9]', 'rolling'],
      ['middleboxes[0].nat.timeout', '5m', '10m', 'rolling'],
    ]);
    assert.deepEqual(changes(RIGHT.replace('interface: out0', 'interface: out1')), [
      ['ports.outside.interface', 'out0', 'out1', 'rolling'],
    ]);
    assert.deepEqual(changes(`${RIGHT}hooks: { on_ready: [/bin/true, x] }\n`), [
      ['hooks.on_ready', 'none', '[/bin/true, x]', 'hot'],
    ]);
  });

  it('never show a secret', () => {
    const seed = 'abcdefghijklmnop';
    const [change] = changes(`${RIGHT}state: { sketch_seed: ${seed} }\n`);
    assert.deepEqual(change, ['state.sketch_seed', '(secret)', '(secret)', 'all-sites']);
  });

  it('are the list of middleboxes alone, where that is another', () => {
    assert.deepEqual(changes(RIGHT.replace('  - nat:', '  - firewall: {}\n  - nat:')), [
      ['middleboxes', '["nat"]', '["firewall","nat"]', 'all-sites'],
    ]);
  });

  it('are gone once the new value is taken over', () => {
    const after = written(`${RIGHT}log: { level: warn }\nreplication: { bandwidth: 10M }\n`);
    let running = written(RIGHT);
    for (const { path, to } of changesBetween(running, after, () => fakeNat.options).changes)
      running = withValue(running, path, to);
    assert.deepEqual(running, after);
  });
});

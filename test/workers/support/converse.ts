/** Conversations with a NAT, as text. */

import { strict as assert } from 'node:assert';
import type { NatSite } from './nat-site.js';
import { on } from './plane.js';

/**
 * A conversation: lines of `port: packet`, each either let in (`>`) or expected out (`<`), in
 * order. External ports are the NAT's to choose: they are written `$a`, `$b`, … and stand for one
 * number throughout.
 */
export function converse(site: NatSite, script: string): NatSite {
  const names = new Map<string, string>();
  const lines = script
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  for (let i = 0; i < lines.length; i++) {
    assert.match(lines[i], /^> [01]: /);
    const packet = lines[i]
      .slice(5)
      .replace(/\$[a-z]/g, (name) => names.get(name) ?? assert.fail(`${name} is not known`));
    const out = site.pass(on(Number(lines[i][2]), packet));
    const expected: string[] = [];
    while (lines[i + 1]?.startsWith('< ')) expected.push(lines[++i].slice(2));
    for (const [n, text] of expected.entries()) learn(names, text, out[n] ?? '');
    const named = expected.map((text) => text.replace(/\$[a-z]/g, (name) => names.get(name) ?? name));
    assert.deepEqual(out, named, `after ${packet}`);
  }
  return site;
}

/** Takes what a name stands for from the packet that came out. */
function learn(names: Map<string, string>, expected: string, actual: string): void {
  const words = expected.split(/[ :]/);
  const found = actual.split(/[ :]/);
  words.forEach((word, i) => {
    if (/^\$[a-z]$/.test(word) && !names.has(word) && found[i] !== undefined) names.set(word, found[i]);
  });
}

import { strict as assert } from 'node:assert';
import { createEventRing, EventReader, EventWriter } from '../../shm/events.js';

describe('event ring', () => {
  it('hands lines over whole, in order, across the wrap', () => {
    const buffer = createEventRing();
    const writer = new EventWriter(buffer);
    const reader = new EventReader(buffer);
    for (let n = 0; n < 2000; n++) {
      const text = `line ${n} ${'ü'.repeat(n % 90)}`;
      writer.write('warn', text);
      assert.deepEqual(reader.read(), [{ level: 'warn', text }]);
    }
    assert.deepEqual(reader.read(), []);
  });

  it('drops lines when nobody reads, and says how many', () => {
    const buffer = createEventRing();
    const writer = new EventWriter(buffer);
    const reader = new EventReader(buffer);
    for (let n = 0; n < 1000; n++) writer.write('info', 'x'.repeat(100));
    const events = reader.read();
    const last = events.pop();
    assert.equal(last?.text, `${1000 - events.length} log lines lost`);
    assert.ok(events.length > 300 && events.every((event) => event.text === 'x'.repeat(100)));
    assert.deepEqual(reader.read(), []);
  });

  it('cuts an overlong line instead of failing', () => {
    const buffer = createEventRing();
    new EventWriter(buffer).write('error', 'y'.repeat(100_000));
    assert.equal(new EventReader(buffer).read()[0].text.length, 2048);
  });
});

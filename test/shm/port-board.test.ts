import { strict as assert } from 'node:assert';
import {
  createPortBoard,
  PORT_STATE_TEXTS,
  PortBoardReader,
  PortBoardWriter,
  type PortFacts,
  PortState,
} from '../../shm/port-board.js';

const FACTS: PortFacts = {
  state: PortState.USABLE,
  attachment: 1,
  mapFd: 7,
  counterFd: 8,
  mac: { low: -2, high: 0xffff },
  address: -1,
  address6: Int32Array.of(-1, 2, 3, -4),
  networks: [{ own: -1, address: -256, mask: -256 }],
  mtuBytes: 9000,
};

describe('the port board', () => {
  it('shows a worker what main wrote, in columns that stay the same arrays', () => {
    const buffer = createPortBoard(3, 2);
    const writer = new PortBoardWriter(buffer, 2);
    const reader = new PortBoardReader(buffer, 2, 1);
    const { mtu, macLow, macHigh, address, hasAddress, address6, hasAddress6, state, attachment, mapFd } = reader;
    assert.equal(reader.refresh(), false, 'nothing was written');

    const bare = { ...FACTS, state: PortState.DOWN, address: null, address6: null, networks: [], mtuBytes: 1500 };
    writer.write([FACTS, bare]);
    assert.equal(reader.refresh(), true);
    assert.equal(reader.refresh(), false);
    assert.deepEqual([...mtu], [9000, 1500]);
    assert.deepEqual([macLow[0], macHigh[0], address[0], mapFd[0], attachment[0]], [-2, 0xffff, -1, 7, 1]);
    assert.deepEqual(
      [[...hasAddress], [...hasAddress6], [...state]],
      [
        [1, 0],
        [1, 0],
        [PortState.USABLE, PortState.DOWN],
      ],
    );
    assert.deepEqual([...address6.subarray(0, 4)], [-1, 2, 3, -4]);
    assert.deepEqual([...reader.networkCount], [1, 0]);
    assert.deepEqual([...reader.networks.subarray(0, 3)], [-1, -256, -256]);
    assert.equal(reader.changes, 1);

    writer.write([bare, FACTS]);
    writer.write([bare, bare]);
    assert.equal(reader.refresh(), true, 'the last of several');
    assert.deepEqual([...hasAddress], [0, 0]);
    assert.throws(() => writer.write([FACTS]), /1 ports for a board of 2/);
  });

  it('shows main which attachment each worker serves', () => {
    const buffer = createPortBoard(2, 2);
    const writer = new PortBoardWriter(buffer, 2);
    const readers = [0, 1].map((worker) => new PortBoardReader(buffer, 2, worker));
    readers[0].serve(1, 5);
    readers[1].serve(0, 6);
    const all = [0, 1].map((worker) => [0, 1].map((port) => writer.serving(worker, port)));
    assert.deepEqual(all, [
      [0, 5],
      [6, 0],
    ]);
  });

  it('has a text for every state', () => {
    assert.equal(PORT_STATE_TEXTS.length, Object.keys(PortState).length);
  });
});

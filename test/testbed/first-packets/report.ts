/** What became of first packets, as a table. */

import { columns } from '../../demo/table.js';
import { distribution } from '../distribution.js';
import { CASES } from './exchange.js';
import type { Figures } from './first-packets.js';
import { REMEDIES, type Remedy } from './networks.js';

/** Tolerance above what is left of the delay, ms; a reply that takes longer is late. */
const MARGIN_MS = 5;

export interface Cell {
  readonly wanMs: number;
  readonly remedy: Remedy;
  readonly figures: Figures;
}

export const total = (cells: readonly Cell[], of: (figures: Figures) => number): number =>
  cells.reduce((sum, { figures }) => sum + of(figures), 0);

/**
 * Median of how much longer first replies took than their baselines, ms; `NaN` if there are none.
 */
export const added = (...figures: Figures[]): number => median(figures, ({ ms }) => ms);

/** Median of what was left of the delay when they arrived, ms. */
export const left = (...figures: Figures[]): number => median(figures, ({ leftMs }) => leftMs);

function median(figures: readonly Figures[], of: (one: Figures['added'][number]) => number): number {
  return distribution(figures.flatMap((each) => each.added.map(of))).p50;
}

const late = (figures: Figures): number => figures.added.filter(({ ms, leftMs }) => ms > leftMs + MARGIN_MS).length;

/**
 * A row for each case and delay. Counts are over all servers. Times are those of the nearest
 * server, for which most of the delay is left.
 */
export function table(cells: readonly Cell[]): string[] {
  const remedies = REMEDIES.filter((remedy) => cells.some((cell) => cell.remedy === remedy));
  const of = (what: string): string[] =>
    remedies.map((remedy, n) => (remedies.length === 1 ? what : `${n === 0 ? `${what}: ` : ''}${remedy}`));
  const titles = ['new flows by', 'delay', 'sent', ...of('lost'), 'left', ...of('added'), ...of('late')];
  const lines = distinct(cells, ({ figures }) => figures.what).flatMap((what) =>
    distinct(cells, ({ wanMs }) => wanMs).map((wanMs) => {
      const here = cells.filter((cell) => cell.figures.what === what && cell.wanMs === wanMs);
      const by = remedies.map((remedy) => here.filter((cell) => cell.remedy === remedy));
      return [
        CASES[what],
        milliseconds(wanMs),
        Math.max(...by.map((some) => total(some, ({ sent }) => sent))),
        ...by.map((some) => total(some, ({ lost }) => lost)),
        milliseconds(left(...nearest(here))),
        ...by.map((some) => milliseconds(added(...nearest(some)))),
        ...by.map((some) => total(some, late)),
      ];
    }),
  );
  return [...columns(titles, lines), ...legend(cells, remedies)];
}

const LEGEND: Readonly<Record<Remedy, string>> = {
  off: 'a reply without state is dropped',
  early: 'it waits for the state',
  held: 'the request waits until the other site has the state',
};

function legend(cells: readonly Cell[], remedies: readonly Remedy[]): string[] {
  const by = (of: (some: readonly Cell[]) => string): string =>
    remedies.map((remedy) => `${remedy} ${of(cells.filter((cell) => cell.remedy === remedy))}`).join(', ');
  const lines = [
    ...(remedies.length > 1 ? [`${remedies.map((remedy) => `${remedy}: ${LEGEND[remedy]}`).join('; ')}.`] : []),
    'lost: first replies, of all servers. left: of the delay between the sites when the reply of the nearest server arrives.',
    'added: by that, to a round trip of an established flow; by bursts, to bursts over symmetric routes to servers further away by what is left.',
    `late: replies, of all servers, that took over ${MARGIN_MS} ms more than what was left.`,
    `Replies that overtook earlier ones of their flow: ${by((some) => String(total(some, ({ reordered }) => reordered)))}.`,
  ];
  for (const what of ['stun', 'stun_spread'] as const) {
    const asked = cells.filter(({ figures }) => figures.what === what);
    const split = (some: readonly Cell[]): string => {
      const here = some.filter((cell) => asked.includes(cell));
      return `${total(here, (figures) => figures.split)} of ${total(here, (figures) => figures.pairs)}`;
    };
    if (asked.length > 0) lines.push(`Sockets that two servers saw at different ports, ${CASES[what]}: ${by(split)}.`);
  }
  return lines;
}

/** Figures for the nearest server. */
function nearest(cells: readonly Cell[]): Figures[] {
  const roundTripMs = Math.min(...cells.map(({ figures }) => figures.server.roundTripMs));
  return cells.map(({ figures }) => figures).filter(({ server }) => server.roundTripMs === roundTripMs);
}

function distinct<T>(cells: readonly Cell[], of: (cell: Cell) => T): T[] {
  return [...new Set(cells.map(of))];
}

const milliseconds = (value: number): string => (Number.isNaN(value) ? '-' : `${value.toFixed(value < 10 ? 1 : 0)} ms`);

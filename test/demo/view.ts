/**
 * The live view: on a terminal, a page that is redrawn in place; otherwise, a line every few
 * seconds.
 */

import type { OriginFigures, SiteFigures } from './figures.js';
import { columns, milliseconds, share } from './table.js';

export interface Picture {
  readonly seconds: number;
  readonly sites: readonly SiteFigures[];
  readonly origins: readonly OriginFigures[];
}

const LINE_EVERY_S = 2;
const CLEAR_BELOW = '\x1b[J';
const upBy = (lines: number): string => (lines > 0 ? `\x1b[${lines}A\r` : '\r');

export class View {
  private readonly out: NodeJS.WriteStream;
  private drawn = 0;
  private nextLineAt = 0;

  constructor(out: NodeJS.WriteStream) {
    this.out = out;
  }

  /** How often new figures are worth taking, ms. */
  get intervalMs(): number {
    return this.out.isTTY ? 500 : LINE_EVERY_S * 1000;
  }

  show(picture: Picture): void {
    if (!this.out.isTTY) {
      if (picture.seconds < this.nextLineAt) return;
      this.nextLineAt = picture.seconds + LINE_EVERY_S;
      this.out.write(`${summaryLine(picture)}\n`);
      return;
    }
    const width = this.out.columns || 80;
    const page = [
      `after ${picture.seconds.toFixed(0)} s`,
      '',
      ...siteTable(picture.sites),
      '',
      ...originTable(picture.origins),
    ];
    const lines = page.map((line) => line.slice(0, width - 1));
    this.out.write(`${upBy(this.drawn)}${CLEAR_BELOW}${lines.join('\n')}\n`);
    this.drawn = lines.length;
  }

  /** Clears the page. Later output takes its place. */
  leave(): void {
    if (this.drawn > 0) this.out.write(`${upBy(this.drawn)}${CLEAR_BELOW}`);
    this.drawn = 0;
  }
}

export function siteTable(sites: readonly SiteFigures[]): string[] {
  return columns(
    [
      'site',
      'packets in',
      'out',
      'flows',
      'records sent',
      'merged',
      'sent again',
      'lag',
      'round trip',
      'replies waited',
      'dropped',
    ],
    sites.map((site) => [
      site.name,
      site.rxPackets,
      site.txPackets,
      site.flows,
      site.records,
      site.coalesced,
      site.retransmissions,
      `${site.lagRecords} records`,
      milliseconds(site.roundTripMs),
      site.waited,
      site.unsolicited,
    ]),
  );
}

export function originTable(origins: readonly OriginFigures[]): string[] {
  return columns(
    ['server', 'round trip', 'downloads', 'right bytes', 'first reply lost', 'connected: median', '95 %', 'most'],
    origins.map(({ origin, fetched, right, lost, connectMs }) => [
      origin.name,
      milliseconds(origin.roundTripMs),
      fetched,
      right,
      share(lost, right),
      milliseconds(connectMs.p50),
      milliseconds(connectMs.p95),
      milliseconds(connectMs.max),
    ]),
  );
}

function summaryLine({ seconds, sites, origins }: Picture): string {
  const downloads = origins.reduce((sum, origin) => sum + origin.fetched, 0);
  const lost = origins.reduce((sum, origin) => sum + origin.lost, 0);
  const parts = sites.map(
    (site) =>
      `${site.name}: ${site.rxPackets} packets in, ${site.flows} flows, ${site.records} records (${site.coalesced} merged), lag ${site.lagRecords}`,
  );
  if (origins.length > 0) parts.push(`${downloads} downloads, ${lost} first replies lost`);
  return `${seconds.toFixed(0).padStart(4)} s  ${parts.join(' | ')}`;
}

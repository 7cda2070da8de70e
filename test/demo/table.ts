/** Formats text in aligned columns. */

export type Cell = string | number;

/** The first column is aligned left, all others right. Titles are on top. */
export function columns(titles: readonly string[], rows: readonly (readonly Cell[])[]): string[] {
  const cells = [titles, ...rows.map((row) => row.map(text))];
  const widths = titles.map((_, i) => Math.max(...cells.map((row) => row[i].length)));
  return cells.map((row) =>
    row
      .map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])))
      .join('   ')
      .trimEnd(),
  );
}

function text(cell: Cell): string {
  if (typeof cell === 'string') return cell;
  return Number.isNaN(cell) ? '-' : cell.toLocaleString('en-US', { maximumFractionDigits: cell < 10 ? 1 : 0 });
}

export function milliseconds(value: number | null): string {
  if (value === null || Number.isNaN(value)) return '-';
  return `${value.toLocaleString('en-US', { maximumFractionDigits: value < 10 ? 1 : 0 })} ms`;
}

export function share(part: number, whole: number): string {
  return whole === 0 ? '-' : `${part} (${Math.round((100 * part) / whole)} %)`;
}

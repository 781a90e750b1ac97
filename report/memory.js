// SPDX-License-Identifier: MIT
// The map of the guest's memory.
'use strict';

/** In the order of the counts of a cell (tool/page_memory.c). */
function fates(memory) {
  return [
    {key: 'used', name: memory.has_touched ? 'Prefetched and used' : 'Prefetched', colour: 'var(--blue)'},
    {key: 'vain', name: 'Prefetched in vain', colour: 'var(--orange)'},
    {key: 'faulted', name: memory.has_wset ? 'Faulted' : 'Touched', colour: 'var(--red)'},
    {key: 'untouched', name: memory.has_touched ? 'Never touched' : 'Not prefetched',
      colour: 'var(--untouched)'},
  ];
}

/** Without a set of touched pages nothing is known to be in vain: those are just prefetched. */
function folded(memory, [used, vain, faulted, untouched]) {
  return memory.has_touched ? [used, vain, faulted, untouched] : [used + vain, 0, faulted, untouched];
}

function address(pages, memory) {
  const mib = pages * memory.page_bytes / 1048576;
  return mib >= 1024 ? `${number(mib / 1024, mib % 1024 ? 2 : 0)} GiB` : `${number(mib, mib % 1 ? 2 : 0)} MiB`;
}

/** A cell shows what there is most of among the first three, fainter if it is little. */
function drawMap(width, memory) {
  const columns = width >= 640 ? 128 : 64;
  const kinds = fates(memory);
  const cells = memory.cells.map((raw, index) => {
    const counts = folded(memory, raw);
    const most = d3.maxIndex(counts.slice(0, 3));
    const kind = counts[most] > 0 ? most : 3;
    return {column: index % columns, row: Math.floor(index / columns), kind, index, counts,
      opacity: kind === 3 ? 1 : 0.5 + 0.5 * counts[kind] / d3.sum(counts)};
  });
  const rows = Math.ceil(cells.length / columns);
  const marginLeft = 72;
  const size = (width - marginLeft - 12) / columns;
  const step = Math.max(1, Math.ceil(rows / 8));
  const about = (cell) => [`from ${address(cell.index * memory.cell_pages, memory)}:`,
    ...kinds.map((kind, index) => cell.counts[index] > 0
      ? `${kind.name.toLowerCase()}: ${number(cell.counts[index])} pages` : null).filter(Boolean)].join('\n');
  return plot(width, {
    marginLeft, marginTop: 12, marginBottom: 8, height: 20 + rows * Math.max(6, Math.min(9, size * 1.2)),
    x: {domain: [0, columns], axis: null},
    y: {domain: [0, rows], reverse: true, label: null, tickSize: 4, ticks: d3.range(0, rows, step),
      tickFormat: (row) => address(row * columns * memory.cell_pages, memory)},
    color: {domain: [0, 1, 2, 3], range: kinds.map((kind) => kind.colour), type: 'ordinal'},
    marks: [
      Plot.rect(cells, {x1: 'column', x2: (cell) => cell.column + 1, y1: 'row', y2: (cell) => cell.row + 1,
        fill: 'kind', fillOpacity: 'opacity', insetRight: 0.5, insetBottom: 0.5, title: about, tip: true}),
    ],
    opacity: {type: 'identity'},
  });
}

function memoryFigure(memory) {
  const kinds = fates(memory);
  const totals = folded(memory, [memory.totals.used, memory.totals.vain, memory.totals.faulted,
    memory.totals.untouched]);
  const part = (index) => `${number(totals[index])} pages (${mb(totals[index] * memory.page_bytes)})`;
  const possible = kinds.map((kind, index) => ({...kind, index}))
    .filter(({index}) => index === 3 || totals[index] > 0 || (index === 1 && memory.has_touched && memory.has_wset));
  const told = possible.map(({name, index}) => `${name.toLowerCase()} ${part(index)}`).join(', ');
  return figure({
    title: 'Map of the guest’s memory',
    summary: [`Of ${number(memory.pages)} pages: ${told}.`,
      `A cell is ${number(memory.cell_pages)} pages; it shows what there is most of in it but for untouched pages, `
      + 'fainter if that is little.'
      + (memory.has_touched && !memory.complete
        ? ' The set of touched pages is incomplete: touches may be missing, and what was prefetched then counts as used.'
        : '')
      + (memory.has_touched ? '' : ' What was used is not known: --touched FILE gives that.')
      + (memory.has_wset ? '' : ' What was prefetched is not known: --working-set FILE gives that.')],
    styles: possible, wide: true,
    charts: [{label: `Map of the memory: ${told}.`, draw: (width) => drawMap(width, memory)}],
    table: {
      caption: 'Pages of the guest',
      head: ['Pages that are', 'Number', 'Size', 'Share'],
      rows: possible.map(({name, index}) => [name, number(totals[index]), mb(totals[index] * memory.page_bytes),
        percent(memory.pages > 0 ? totals[index] / memory.pages : 0, 1)]),
    },
  });
}

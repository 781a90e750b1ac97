// SPDX-License-Identifier: MIT
// Elements: figures with their charts, legends and tables.
'use strict';

/** An element. Strings among the children become text, never markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (value !== undefined) made.setAttribute(key, value);
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/**
 * A table: {caption, head: [text], rows: [[cell]], texts: how many columns are text}. A cell is a
 * string or {best: string}.
 */
function table({caption, head, rows, texts = 1}) {
  const kind = (column) => column < texts ? {class: 'text'} : {};
  const cell = (value, column) => element(column === 0 ? 'th' : 'td',
    column === 0 ? {scope: 'row', ...kind(0)} : kind(column),
    typeof value === 'object' ? element('strong', {}, value.best) : value);
  // What scrolls must be within reach of the keyboard.
  return element('div', {class: 'table', tabindex: '0', role: 'region', 'aria-label': caption},
    element('table', {}, element('caption', {}, caption),
      element('thead', {}, element('tr', {}, head.map((text, column) =>
        element('th', {scope: 'col', ...kind(column)}, text)))),
      element('tbody', {}, rows.map((row) => element('tr', {}, row.map(cell))))));
}

const SVG = 'http://www.w3.org/2000/svg';

function swatch({colour, dash}, isLine) {
  const svg = document.createElementNS(SVG, 'svg');
  const shape = document.createElementNS(SVG, isLine ? 'line' : 'rect');
  const attributes = isLine
    ? {x1: 0, y1: 7, x2: 28, y2: 7, stroke: colour, 'stroke-width': 2.5, 'stroke-dasharray': dash}
    : {x: 0, y: 1, width: 12, height: 12, fill: colour};
  for (const [key, value] of Object.entries(attributes)) shape.setAttribute(key, value);
  svg.setAttribute('width', isLine ? 28 : 12);
  svg.setAttribute('height', 14);
  svg.setAttribute('aria-hidden', 'true');
  svg.append(shape);
  return svg;
}

/** What the colours mean: [{name, colour, dash}]. */
function legend(styles, isLine) {
  return element('ul', {class: 'legend'},
    styles.map((style) => element('li', {}, swatch(style, isLine), style.name)));
}

// ---- Charts -------------------------------------------------------------------------------------

/** What all charts have in common; `options` come on top. */
function plot(width, options) {
  return Plot.plot({
    width, marginTop: 26, marginRight: 12, marginBottom: 40,
    style: {fontSize: '12px', background: 'transparent', color: 'inherit', fontFamily: 'inherit'},
    ...options,
  });
}

/** Ticks of a logarithmic axis: 1, 2 and 5 of each decade, or less, so that their words have room. */
function logTicks([first, last], width) {
  const room = Math.max(2, width / 64);
  const exponents = d3.range(Math.floor(Math.log10(first)), Math.ceil(Math.log10(last)) + 1);
  for (const steps of [[1, 2, 5], [1, 3], [1]]) {
    const ticks = exponents.flatMap((exponent) => steps.map((step) => step * 10 ** exponent))
      .filter((tick) => tick >= first * 0.999 && tick <= last * 1.001);
    if (ticks.length <= room) return ticks.length > 0 ? ticks : [first, last];
  }
  return exponents.filter((exponent) => exponent % 2 === 0).map((exponent) => 10 ** exponent);
}

const observer = new ResizeObserver((entries) => {
  for (const {target, contentRect} of entries) {
    const width = Math.floor(contentRect.width);
    if (width > 0 && target.drawnWidth !== width) {
      target.drawnWidth = width;
      const svg = target.draw(width);
      // The chart's words are in its label and in the table.
      svg.setAttribute('aria-hidden', 'true');
      target.replaceChildren(svg);
    }
  }
});

/** A chart that is drawn again when its room changes. */
function chart({heading, label, draw}) {
  const room = element('div', {role: 'img', 'aria-label': label});
  room.draw = draw;
  observer.observe(room);
  return element('div', {class: 'chart'}, heading ? element('h4', {}, heading) : null, room);
}

let figureCount = 0;

/**
 * A figure: {title, summary: its content in a sentence or more, styles and lines for the legend,
 * charts: [{heading, label, draw(width)}], wide: one chart in a row, table}.
 */
function figure({title, summary, styles, lines = false, charts, wide = false, table: content}) {
  const id = `figure-${++figureCount}`;
  return element('figure', {id, 'aria-labelledby': `${id}-title`},
    element('figcaption', {}, element('h3', {id: `${id}-title`}, title),
      [summary].flat().filter(Boolean).map((text) => element('p', {}, text))),
    styles ? legend(styles, lines) : null,
    element('div', {class: wide ? 'charts wide' : 'charts'}, charts.map(chart)),
    element('details', {}, element('summary', {}, 'The same as a table'), table(content)));
}

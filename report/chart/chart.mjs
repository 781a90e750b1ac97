// SPDX-License-Identifier: MIT
// Draws the README's picture: data from standard input, an SVG file to standard output.
//
//   {"title", "description", "policies": [names, from the top], "groups": [{"name", "colour"}],
//    "rows": [{"workload", "storage", "policy", "group", "median", "min", "max"}],   in ms
//    "limits": [{"workload", "storage", "ms"}]}
//
// A field of bars for each workload (down) and storage (across).
import {readFileSync} from 'node:fs';
import * as Plot from '@observablehq/plot';
import {parseHTML} from 'linkedom';

const BAR = 15; // height, with its gap
const {document} = parseHTML('<!doctype html><html><body></body></html>');
const {title, description, policies, groups, rows, limits} = JSON.parse(readFileSync(0, 'utf8'));

const different = (field) => [...new Set(rows.map((row) => row[field]))];
const workloads = different('workload');
const storages = different('storage');

/** The whole power of ten at or below the least value: bars on a logarithmic axis begin there. */
const first = 10 ** Math.floor(Math.log10(Math.max(1, Math.min(...rows.map((row) => row.min)) / 1.5)));
const last = Math.max(...rows.map((row) => row.max));

function time(ms) {
  if (ms < 1000) return `${ms.toFixed(0)} ms`;
  return `${(ms / 1000).toFixed(ms < 9950 ? 1 : 0)} s`;
}

function tick(ms) {
  return ms < 1000 ? `${ms} ms` : `${ms / 1000} s`;
}

const place = {fx: 'storage', fy: 'workload'};
const width = 110 + 330 * storages.length + 60;
const height = 86 + workloads.length * (policies.length * BAR + 26);
const svg = Plot.plot({
  document, width, height, marginTop: 52, marginBottom: 50, marginLeft: 148, marginRight: 50,
  style: {fontSize: '11px', color: '#1b1f24'},
  ariaLabel: title, ariaDescription: description,
  x: {type: 'log', domain: [first, last * 3], grid: true, ticks: 4, tickFormat: tick, label: null},
  y: {domain: policies, label: null, tickSize: 0, padding: 0.25},
  fx: {domain: storages, label: null, padding: 0.04},
  fy: {domain: workloads, label: null, padding: 0.08},
  color: {domain: groups.map((group) => group.name), range: groups.map((group) => group.colour)},
  marks: [
    Plot.barX(rows, {...place, x1: first, x2: (row) => Math.max(first, row.median), y: 'policy', fill: 'group'}),
    Plot.ruleY(rows.filter((row) => row.max > row.min),
      {...place, x1: 'min', x2: 'max', y: 'policy', strokeWidth: 1.5}),
    Plot.ruleX(limits, {...place, x: 'ms', strokeDasharray: '4 3'}),
    Plot.text(rows, {...place, x: (row) => Math.max(first, row.max), y: 'policy', dx: 4, textAnchor: 'start',
      stroke: '#ffffff', strokeWidth: 3, fill: 'currentColor', text: (row) => time(row.median)}),
  ],
});

function add(parent, name, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

// A ground of its own: the README is read on light pages and on dark ones.
svg.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
svg.prepend(add(svg, 'rect', {width, height, rx: 6, fill: '#ffffff'}));
svg.prepend(add(svg, 'desc', {}, description));
svg.prepend(add(svg, 'title', {}, title));
const legend = add(svg, 'g', {'text-anchor': 'start', transform: 'translate(12, 10)'});
let x = 0;
for (const group of groups) {
  add(legend, 'rect', {x, width: 11, height: 11, fill: group.colour});
  add(legend, 'text', {x: x + 16, y: 9.5}, group.name);
  x += 34 + 6.2 * group.name.length;
}
if (limits.length > 0) {
  add(legend, 'line', {x1: x, x2: x + 16, y1: 6, y2: 6, stroke: 'currentColor', 'stroke-dasharray': '4 3'});
  add(legend, 'text', {x: x + 21, y: 9.5}, 'the limit');
}
add(svg, 'text', {x: 12, y: height - 10, fill: 'currentColor', 'text-anchor': 'start'},
  `${title}: bars are medians, lines go from the least to the greatest.`);
process.stdout.write(`${svg.outerHTML}\n`);

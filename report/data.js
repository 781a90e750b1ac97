// SPDX-License-Identifier: MIT
// The data of the page, in groups and as numbers for people. rouse report has checked its form
// (tool/page.h says what it is); the texts in it come from files and become text nodes only.
'use strict';

const data = JSON.parse(document.getElementById('report-data').textContent);

// The colours are variables of page.css, so that they follow the scheme. The order is that of the
// figures: the default policy first, the peers last.
const COLOURS = {
  auto: 'pink', ws: 'blue', paced: 'teal', eager: 'orange', lazy: 'purple', qemu: 'grey', reap: 'red',
  faasnap: 'green', 'qemu10-mapped-ram': 'brown', 'lazy-background': 'indigo',
};
// For other names: those first that few figures have.
const SPARE_COLOURS = ['indigo', 'brown', 'green', 'red', 'teal', 'grey', 'purple', 'pink', 'orange',
  'blue'];
// So that lines differ without their colours, too.
const DASHES = ['none', '7 3', '2 3', '9 3 2 3', '4 4', '12 3'];
const ORDER = Object.keys(COLOURS);

/** [{name, colour, dash}] of policies, in an order that is the same in all figures. */
function styled(names) {
  const known = ORDER.filter((name) => names.includes(name));
  const others = names.filter((name) => !ORDER.includes(name));
  const taken = known.map((name) => COLOURS[name]);
  const free = SPARE_COLOURS.filter((colour) => !taken.includes(colour));
  const spare = free.length > 0 ? free : SPARE_COLOURS;
  return [...known, ...others].map((name, index) => ({
    name,
    colour: `var(--${Object.hasOwn(COLOURS, name) ? COLOURS[name]
      : spare[(index - known.length) % spare.length]})`,
    dash: DASHES[index % DASHES.length],
  }));
}

function colourScale(styles) {
  return {domain: styles.map((each) => each.name), range: styles.map((each) => each.colour)};
}

// ---- Numbers ------------------------------------------------------------------------------------

function number(value, digits = 0) {
  return value.toLocaleString('en', {maximumFractionDigits: digits, minimumFractionDigits: digits});
}

/** Milliseconds, with three digits or so that matter. */
function ms(value) {
  if (value >= 10000) return `${number(value / 1000, 1)} s`;
  return `${number(value, value > 0 && value < 10 ? 1 : 0)} ms`;
}

function us(value) {
  return value < 1000 ? `${number(value)} µs` : ms(value / 1000);
}

function mb(bytes) {
  return `${number(bytes / 1e6, bytes < 1e7 ? 1 : 0)} MB`;
}

function percent(share, digits = 0) {
  return `${number(share * 100, digits)} %`;
}

/** A round number of milliseconds or microseconds at an axis. */
function tickMs(value) {
  return value >= 1000 ? `${Number((value / 1000).toPrecision(2))} s` : `${Number(value.toPrecision(2))} ms`;
}

function tickUs(value) {
  return value >= 1000 ? tickMs(value / 1000) : `${Number(value.toPrecision(2))} µs`;
}

/** Of the values that are there: {median, min, max, count}; null if none is. */
function spread(runs, field) {
  const values = runs.map(typeof field === 'function' ? field : (run) => run[field])
    .filter((value) => typeof value === 'number');
  if (values.length === 0) return null;
  return {median: d3.median(values), min: d3.min(values), max: d3.max(values), count: values.length};
}

/** "median (least to greatest)". */
function shown(found, format) {
  if (!found) return '–';
  if (found.count < 2) return format(found.median);
  return `${format(found.median)} (${format(found.min)} to ${format(found.max)})`;
}

// ---- Groups -------------------------------------------------------------------------------------

/** [[key, items]] in the order of first appearance. */
function grouped(items, key) {
  return [...d3.group(items, (item) => item[key])];
}

/** Of the runs of one workload and storage: [{name, colour, dash, runs}] of each policy. */
function byPolicy(runs) {
  const groups = d3.group(runs, (run) => run.policy);
  return styled([...groups.keys()]).map((style) => ({...style, runs: groups.get(style.name)}));
}

// A map, and not an object: names from files may be those that objects inherit.
const DISKS = new Map([['disk', 'disk as it is'], ['slow', 'slow disk']]);

/** What the demo calls "disk" and "slow", in full; others are named as they want to be. */
function diskName(storage) {
  return DISKS.get(storage) ?? storage;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** "idle, slow disk", or what there is of it. */
function placeName(workload, storage) {
  return [workload, diskName(storage)].filter(Boolean).join(', ');
}

/** TTR(utilization, window) of a run, from its table. */
function ttrOf(run, utilization, windowMs) {
  return run.ttr_table?.find((row) => Math.abs(row.utilization - utilization) < 1e-6 &&
    Math.abs(row.window_ms - windowMs) < 1e-6)?.ttr_ms;
}

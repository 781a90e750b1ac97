// SPDX-License-Identifier: MIT
// Figures of runs: restores of the demo, of a benchmark, or single ones.
'use strict';

/** Room for the names at the left of a chart. */
function nameMargin(names) {
  return Math.min(160, 14 + 7.2 * d3.max(names, (name) => name.length));
}

function policyRows(policies) {
  return policies.map(({name, runs}) => ({
    policy: name, ttr: spread(runs, 'ttr_ms'), start: spread(runs, 'start_ms'),
    guest: spread(runs, 'guest_ttr_ms'),
  }));
}

// ---- TTR ----------------------------------------------------------------------------------------

function drawTtr(width, policies, limitMs) {
  const rows = policyRows(policies);
  const end = d3.max(rows, (row) => Math.max(row.ttr.max, row.guest?.max ?? 0, limitMs ?? 0));
  const names = policies.map((policy) => policy.name);
  return plot(width, {
    height: 56 + 34 * rows.length, marginLeft: nameMargin(names), marginTop: 8, marginRight: 74,
    x: {domain: [0, end > 0 ? end * 1.02 : 1], grid: true, ticks: Math.max(2, width / 110),
      label: 'ms since the request →', labelAnchor: 'right'},
    y: {domain: names, label: null, tickSize: 0, padding: 0.35},
    color: colourScale(policies),
    marks: [
      Plot.barX(rows, {x: (row) => row.ttr.median, y: 'policy', fill: 'policy',
        title: (row) => `${row.policy}: ${shown(row.ttr, ms)}`, tip: true}),
      Plot.ruleX([0]),
      Plot.ruleY(rows.filter((row) => row.ttr.count > 1), {x1: (row) => row.ttr.min,
        x2: (row) => row.ttr.max, y: 'policy', strokeWidth: 1.5}),
      Plot.dot(rows.filter((row) => row.guest), {x: (row) => row.guest.median, y: 'policy', r: 4,
        fill: 'var(--surface)', stroke: 'currentColor', strokeWidth: 1.5}),
      limitMs === undefined ? null : Plot.ruleX([limitMs], {strokeDasharray: '4 3', strokeWidth: 1.5}),
      Plot.text(rows, {y: 'policy', frameAnchor: 'right', dx: 72, textAnchor: 'end',
        text: (row) => ms(row.ttr.median), fontWeight: 600}),
    ],
  });
}

function ttrSentence(name, policies) {
  const rows = d3.sort(policyRows(policies), (row) => row.ttr.median);
  const told = rows.map((row) => `${row.policy} ${ms(row.ttr.median)}`).join(', ');
  return `${name ? `${name}: ` : ''}${told}.`;
}

function ttrFigure(workload, runs) {
  const storages = grouped(runs, 'storage').map(([storage, of]) => ({
    storage, policies: byPolicy(of), limitMs: spread(of, 'limit_ms')?.median}));
  const marks = [
    runs.some((run) => run.round > 1) ? 'Bars: medians of the rounds; lines: least to greatest' : 'Bars: one restore each',
    runs.some((run) => run.guest_ttr_ms !== undefined) && 'circles: what the guest itself says',
    runs.some((run) => run.limit_ms !== undefined) &&
      'dashed: the limit, reading the working set at the disk’s rate',
  ].filter(Boolean).join('; ');
  return figure({
    title: `Time to responsiveness${workload ? `: ${workload}` : ''}`,
    summary: [storages.map(({storage, policies}) => ttrSentence(capital(diskName(storage)), policies)).join(' '),
      `${marks}.`],
    charts: storages.map(({storage, policies, limitMs}) => ({
      heading: capital(diskName(storage)),
      label: `Time to responsiveness, bars. ${ttrSentence(placeName(workload, storage), policies)}`,
      draw: (width) => drawTtr(width, policies, limitMs)})),
    table: {
      caption: `TTR(90 %, 100 ms)${workload ? ` of ${workload}` : ''}: median (least to greatest)`,
      head: ['Policy', 'Disk', 'Runs', 'TTR', 'First instruction', 'The guest itself', 'Last page',
        'Faults', 'Read'],
      texts: 2,
      rows: storages.flatMap(({storage, policies}) => policies.map(({name, runs: of}) => [
        name, diskName(storage) || '–', number(of.length), shown(spread(of, 'ttr_ms'), ms),
        shown(spread(of, 'start_ms'), ms), shown(spread(of, 'guest_ttr_ms'), ms),
        shown(spread(of, 'complete_ms'), ms), shown(spread(of, 'faults'), number),
        shown(spread(of, 'read_bytes'), mb)])),
    },
  });
}

// ---- Bounded mutator utilization, from the tables of TTR ------------------------------------------

const LEVELS = [0.5, 0.75, 0.9, 0.95, 0.99];
const WINDOWS_MS = [10, 100, 1000];

/** [[ms, utilization that is kept from then on]], as steps. */
function guaranteed(runs, windowMs) {
  const points = LEVELS.map((level) => [spread(runs, (run) => ttrOf(run, level, windowMs))?.median, level])
    .filter(([time]) => time !== undefined);
  return points.map(([time, level]) => ({ms: Math.max(time, 1), level}));
}

function drawGuaranteed(width, policies) {
  const curves = policies.map((policy) => ({...policy, points: guaranteed(policy.runs, 100)}));
  const times = curves.flatMap((curve) => curve.points.map((point) => point.ms));
  const [first, last] = [Math.max(1, d3.min(times) / 1.6), d3.max(times) * 1.6];
  return plot(width, {
    height: 240, marginLeft: 44,
    x: {type: 'log', domain: [first, last], grid: true, ticks: logTicks([first, last], width),
      tickFormat: tickMs, label: 'since the request, log →', labelAnchor: 'right'},
    y: {domain: [0, 1], grid: true, label: '↑ utilization kept', tickFormat: (value) => percent(value)},
    marks: [
      Plot.ruleY([0]),
      ...curves.map((curve) => Plot.line(
        [{ms: first, level: 0}, ...curve.points, {ms: last, level: curve.points.at(-1)?.level ?? 0}],
        {x: 'ms', y: 'level', curve: 'step-after', stroke: curve.colour, strokeWidth: 2.25,
          strokeDasharray: curve.dash})),
      Plot.tip(curves.flatMap((curve) => curve.points.map((point) => ({...point, name: curve.name}))),
        Plot.pointer({x: 'ms', y: 'level',
          title: (point) => `${point.name}: ${percent(point.level)} from ${ms(point.ms)} on`})),
    ],
  });
}

function guaranteedFigure(workload, runs) {
  const storages = grouped(runs, 'storage').map(([storage, of]) => ({storage, policies: byPolicy(of)}));
  const at = (policies) => policies.map(({name, runs: of}) => {
    const time = spread(of, (run) => ttrOf(run, 0.99, 100));
    return `${name} ${time ? ms(time.median) : 'never'}`;
  }).join(', ');
  return figure({
    title: `Bounded mutator utilization${workload ? `: ${workload}` : ''}`,
    summary: [`99 % is kept from: ${storages.map(({storage, policies}) =>
      `${at(policies)}${storage ? ` (${diskName(storage)})` : ''}`).join('; ')}.`,
    'The utilization that every window of 100 ms or longer has, if it begins at that time or later. '
      + 'The further left a curve rises, the better.'],
    styles: byPolicy(runs), lines: true,
    charts: storages.map(({storage, policies}) => ({
      heading: capital(diskName(storage)),
      label: `Utilization that is kept from a time on, steps. 99 % is kept from: ${at(policies)}.`,
      draw: (width) => drawGuaranteed(width, byStyle(policies, runs))})),
    table: {
      caption: `TTR(utilization, window)${workload ? ` of ${workload}` : ''}: medians`,
      head: ['Policy', 'Disk', 'Windows from', ...LEVELS.map((level) => percent(level))],
      texts: 3,
      rows: storages.flatMap(({storage, policies}) => policies.flatMap(({name, runs: of}) =>
        WINDOWS_MS.map((windowMs) => [name, diskName(storage) || '–', ms(windowMs), ...LEVELS.map((level) => {
          const time = spread(of, (run) => ttrOf(run, level, windowMs));
          return time ? ms(time.median) : '–';
        })]))),
    },
  });
}

/** The policies with the styles that they have among all runs of the figure: those of its legend. */
function byStyle(policies, runs) {
  const styles = d3.index(byPolicy(runs), (style) => style.name);
  return policies.map((policy) => ({...styles.get(policy.name), runs: policy.runs}));
}

// ---- Latencies of faults ------------------------------------------------------------------------

const PERCENTILES = ['p50', 'p90', 'p99', 'max'];
const PERCENTILE_NAMES = {p50: 'half', p90: '90 %', p99: '99 %', max: 'all'};
const SYMBOLS = {p50: 'circle', p90: 'square', p99: 'triangle', max: 'times'};

/** Those that had a fault and saw how long it took: of a flat file that is mapped nobody does. */
function timedRuns(runs) {
  return runs.filter((run) => run.faults > 0 && run.fault_us?.max > 0);
}

function latencyRows(policies) {
  return policies.flatMap(({name, runs}) => {
    const faulting = timedRuns(runs);
    return faulting.length === 0 ? [] : PERCENTILES.map((rank) => ({policy: name, rank,
      us: Math.max(1, spread(faulting, (run) => run.fault_us[rank]).median)}));
  });
}

function drawLatency(width, policies) {
  const rows = latencyRows(policies);
  const names = [...new Set(rows.map((row) => row.policy))];
  const domain = [d3.min(rows, (row) => row.us) / 1.5, d3.max(rows, (row) => row.us) * 1.5];
  return plot(width, {
    height: 70 + 30 * names.length, marginLeft: nameMargin(names), marginTop: 8, marginRight: 24,
    x: {type: 'log', domain, grid: true, ticks: logTicks(domain, width), tickFormat: tickUs,
      label: 'service of a fault, log →', labelAnchor: 'right'},
    y: {domain: names, label: null, tickSize: 0},
    color: colourScale(policies),
    symbol: {domain: PERCENTILES, range: PERCENTILES.map((rank) => SYMBOLS[rank])},
    marks: [
      Plot.ruleY(d3.groups(rows, (row) => row.policy), {y: ([name]) => name,
        x1: ([, of]) => d3.min(of, (row) => row.us), x2: ([, of]) => d3.max(of, (row) => row.us),
        stroke: ([name]) => name, strokeOpacity: 0.5, strokeWidth: 2}),
      Plot.dot(rows, {x: 'us', y: 'policy', stroke: 'policy', symbol: 'rank', r: 5, strokeWidth: 2,
        title: (row) => `${row.policy}: ${PERCENTILE_NAMES[row.rank]} within ${us(row.us)}`, tip: true}),
    ],
  });
}

function latencySentence(policies) {
  const rows = latencyRows(policies).filter((row) => row.rank === 'p50' || row.rank === 'p99');
  return [...d3.group(rows, (row) => row.policy)].map(([name, [half, most]]) =>
    `${name}: half within ${us(half.us)}, 99 % within ${us(most.us)}`).join('; ');
}

/** Null if no run has a fault of which is known how long it took. */
function latencyFigure(workload, runs) {
  const storages = grouped(runs, 'storage').map(([storage, of]) => ({storage, policies: byPolicy(of)}))
    .filter(({policies}) => latencyRows(policies).length > 0);
  if (storages.length === 0) return null;
  const all = storages.map(({storage, policies}) =>
    `${storage ? `${capital(diskName(storage))}: ` : ''}${latencySentence(policies)}`).join('. ');
  return figure({
    title: `Latency of faults${workload ? `: ${workload}` : ''}`,
    summary: [`${all}.`, 'Circle: half of the faults; square: 90 %; triangle: 99 %; cross: the longest. '
      + 'Policies without a fault, or whose faults nobody timed, are left out.'],
    charts: storages.map(({storage, policies}) => ({
      heading: capital(diskName(storage)),
      label: `Service times of faults, dots. ${latencySentence(policies)}.`,
      draw: (width) => drawLatency(width, policies)})),
    table: {
      caption: `Service times of faults${workload ? ` of ${workload}` : ''}: median of the rounds`,
      head: ['Policy', 'Disk', 'Faults', 'Half within', '90 % within', '99 % within', 'Longest'],
      texts: 2,
      rows: storages.flatMap(({storage, policies}) => policies.map(({name, runs: of}) => [
        name, diskName(storage) || '–', shown(spread(of, 'faults'), number),
        ...PERCENTILES.map((rank) => {
          const found = spread(timedRuns(of), (run) => run.fault_us[rank]);
          return found ? us(found.median) : '–';
        })])),
    },
  });
}

// ---- At a glance --------------------------------------------------------------------------------

function glance(runs) {
  const names = byPolicy(runs).map((policy) => policy.name);
  const places = grouped(runs, 'workload').flatMap(([workload, of]) =>
    grouped(of, 'storage').map(([storage, those]) => [placeName(workload, storage) || 'all runs', those]));
  return table({
    caption: 'TTR(90 %, 100 ms), medians; ticked: the least',
    head: ['Workload, disk', ...names],
    rows: places.map(([place, of]) => {
      const medians = names.map((name) => spread(of.filter((run) => run.policy === name), 'ttr_ms')?.median);
      const best = d3.min(medians);
      return [place, ...medians.map((median) => median === undefined ? '–'
        : median === best && names.length > 1 ? {best: ms(median)} : ms(median))];
    }),
  });
}

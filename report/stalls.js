// SPDX-License-Identifier: MIT
// Figures of logs of stalls.
'use strict';

function curves() {
  const styles = d3.index(styled([...new Set(data.stalls.map((each) => each.name))]), (style) => style.name);
  return data.stalls.map((each) => ({...each, ...styles.get(each.name)}));
}

/** Lines over x and a share, with a tip at each point. */
function drawLines(width, field, x, yLabel, title, more = []) {
  const all = curves();
  return plot(width, {
    height: Math.max(220, Math.min(320, width / 2.4)), marginLeft: 44,
    x: {grid: true, labelAnchor: 'right', ticks: Math.max(2, width / 100), ...x},
    y: {domain: [0, 1], grid: true, label: yLabel, tickFormat: (value) => percent(value)},
    marks: [
      Plot.ruleY([0]), ...more,
      ...all.map((curve) => Plot.line(curve[field], {stroke: curve.colour, strokeWidth: 2,
        strokeDasharray: curve.dash})),
      Plot.tip(all.flatMap((curve) => curve[field].map(([at, share]) => ({at, share, name: curve.name}))),
        Plot.pointer({x: 'at', y: 'share', title})),
    ],
  });
}

function sampledRows(field, format, wanted) {
  return curves().map((curve) => [curve.name, ...wanted.map((at) => {
    const points = curve[field];
    const found = points[Math.max(0, d3.bisector(([x]) => x).right(points, at) - 1)];
    return found ? format(found) : '–';
  })]);
}

function utilizationFigure() {
  const all = curves();
  const windowMs = all[0].window_ms;
  const end = d3.max(all, (curve) => curve.utilization.at(-1)[0]);
  const times = d3.range(9).map((step) => end / 8 * step);
  const told = all.map((curve) => `${curve.name}: runs after ${ms(curve.start_ms)}, TTR ${ms(curve.ttr_ms)}, `
    + `${number(curve.faults)} faults`).join('; ');
  return figure({
    title: 'Utilization over time',
    summary: [`${told}.`, `The share of the vCPUs’ time that was not stalled, in the ${ms(windowMs)} that `
      + 'begin at each time. Upright lines: TTR(90 %, 100 ms).'],
    styles: all, lines: true, wide: true,
    charts: [{
      label: `Utilization over time, lines. ${told}.`,
      draw: (width) => drawLines(width, 'utilization', {label: 'ms since the request →'}, '↑ utilization',
        (point) => `${point.name}: ${percent(point.share)} at ${ms(point.at)}`,
        all.map((curve) => Plot.ruleX([curve.ttr_ms], {stroke: curve.colour, strokeDasharray: '2 4'}))),
    }],
    table: {
      caption: `Utilization of the ${ms(windowMs)} that begin at a time`,
      head: ['Restore', ...times.map(ms)],
      rows: sampledRows('utilization', ([, share]) => percent(share), times),
    },
  });
}

function bmuFigure() {
  const all = curves();
  const windows = [1, 10, 100, 1000, 10000];
  const told = all.map((curve) => {
    const [, share] = curve.bmu.find(([windowMs]) => windowMs === 100);
    return `${curve.name} ${percent(share)}`;
  }).join(', ');
  return figure({
    title: 'Bounded mutator utilization by window',
    summary: [`With windows of 100 ms: ${told}.`,
      'The least utilization of any window of that length or longer after the first instruction.'],
    styles: all, lines: true, wide: true,
    charts: [{
      label: `Least utilization by length of the window, lines. At 100 ms: ${told}.`,
      draw: (width) => drawLines(width, 'bmu', {
        type: 'log', ticks: logTicks([1, 10000], width), tickFormat: tickMs, label: 'window, log →'}, '↑ least utilization',
      (point) => `${point.name}: at least ${percent(point.share)} in ${ms(point.at)}`),
    }],
    table: {
      caption: 'Least utilization of windows that are at least so long',
      head: ['Restore', ...windows.map(ms)],
      rows: sampledRows('bmu', ([, share]) => percent(share), windows),
    },
  });
}

/** Null if nothing stalled after the first instruction. */
function stallLatencyFigure() {
  const all = curves().filter((curve) => curve.latency.length > 0);
  if (all.length === 0) return null;
  const at = (curve, share) => us(curve.latency[Math.min(curve.latency.length - 1,
    d3.bisector(([, y]) => y).left(curve.latency, share))][0]);
  const told = all.map((curve) => `${curve.name}: half within ${at(curve, 0.5)}, 99 % within ${at(curve, 0.99)}`)
    .join('; ');
  const shares = [0.1, 0.5, 0.9, 0.99, 1];
  const range = d3.extent(all.flatMap((curve) => curve.latency.map(([latency]) => latency)));
  return figure({
    title: 'Distribution of the stalls',
    summary: [`${told}.`,
      'The share of the faults whose page was there within a time, with the way to the VMM and back.'],
    styles: all, lines: true, wide: true,
    charts: [{
      label: `Share of faults by latency, lines. ${told}.`,
      draw: (width) => drawLines(width, 'latency', {
        type: 'log', ticks: logTicks(range, width), tickFormat: tickUs, label: 'length of a stall, log →'}, '↑ faults',
      (point) => `${point.name}: ${percent(point.share)} within ${us(point.at)}`),
    }],
    table: {
      caption: 'So many of the faults took at most so long',
      head: ['Restore', 'Faults', ...shares.map((share) => percent(share))],
      rows: all.map((curve) => [curve.name, number(curve.faults), ...shares.map((share) => at(curve, share))]),
    },
  });
}

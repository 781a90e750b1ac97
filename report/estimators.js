// SPDX-License-Identifier: MIT
// Figures of estimators of the working set.
'use strict';

function estimatorGroups(runs) {
  return grouped(runs, 'estimator').map(([name, of]) => ({name, runs: of,
    precision: spread(of, 'precision'), recall: spread(of, 'recall'),
    slow: spread(of, 'ttr_ms'), disk: spread(of, 'ttr_disk_ms')}));
}

function drawQuality(width, groups) {
  const names = groups.map((group) => group.name);
  return plot(width, {
    height: 40 + 28 * groups.length, marginLeft: nameMargin(names), marginTop: 8, marginRight: 28, marginBottom: 28,
    x: {domain: [0, 1], grid: true, ticks: 5, tickFormat: (value) => percent(value), label: null},
    y: {domain: names, label: null, tickSize: 0},
    marks: [
      Plot.ruleY(groups, {y: 'name', x1: (group) => group.recall.median, x2: (group) => group.precision.median,
        strokeOpacity: 0.35}),
      Plot.dot(groups, {x: (group) => group.recall.median, y: 'name', r: 5.5, fill: 'var(--blue)',
        title: (group) => `${group.name}: recall ${percent(group.recall.median, 1)}`, tip: true}),
      Plot.dot(groups, {x: (group) => group.precision.median, y: 'name', r: 5, symbol: 'diamond', strokeWidth: 2,
        stroke: 'var(--orange)', fill: 'var(--surface)',
        title: (group) => `${group.name}: precision ${percent(group.precision.median, 1)}`, tip: true}),
    ],
  });
}

function qualityFigure(place, runs) {
  const groups = estimatorGroups(runs);
  const told = groups.map((group) => `${group.name}: recall ${percent(group.recall.median)}, `
    + `precision ${percent(group.precision.median)}`).join('; ');
  return figure({
    title: `What estimators find: ${place}`,
    summary: [`${told}.`, 'Dot: recall, the share of what the guest touched that the set has; diamond: precision, '
      + 'the share of the set that was touched.'],
    charts: [{label: `Recall and precision, dots. ${told}.`, draw: (width) => drawQuality(width, groups)}],
    wide: true,
    table: {
      caption: `Estimators: ${place}; median (least to greatest)`,
      head: ['Estimator', 'Recall', 'Precision', 'Order', 'Size', 'Stop to begin', 'Slower while it runs',
        'TTR, slow disk', 'TTR, disk as it is'],
      rows: groups.map(({name, runs: of}) => [name,
        shown(spread(of, 'recall'), (value) => percent(value, 1)),
        shown(spread(of, 'precision'), (value) => percent(value, 1)),
        shown(spread(of, 'order_correlation'), (value) => number(value, 2)),
        shown(spread(of, 'set_bytes'), mb), shown(spread(of, 'arm_pause_ms'), ms),
        shown(spread(of, 'slowdown'), (value) => percent(value, 1)), shown(spread(of, 'ttr_ms'), ms),
        shown(spread(of, 'ttr_disk_ms'), ms)]),
    },
  });
}

/** Null if no set was restored from. */
function worthFigure(place, runs) {
  const disks = [['slow', 'Slow disk'], ['disk', 'Disk as it is']].map(([field, heading]) => ({heading,
    groups: estimatorGroups(runs).filter((group) => group[field])
      .map((group) => ({name: group.name, colour: 'var(--blue)',
        runs: group.runs.map((run) => ({ttr_ms: field === 'slow' ? run.ttr_ms : run.ttr_disk_ms}))
          .filter((run) => run.ttr_ms !== undefined)}))})).filter(({groups}) => groups.length > 0);
  if (disks.length === 0) return null;
  return figure({
    title: `What their sets are worth: ${place}`,
    summary: [disks.map(({heading, groups}) => ttrSentence(heading, groups)).join(' '),
      'Time to responsiveness of a restore with each set; bars: medians.'],
    charts: disks.map(({heading, groups}) => ({heading,
      label: `Time to responsiveness, bars. ${ttrSentence(place, groups)}`,
      draw: (width) => drawTtr(width, groups)})),
    table: {
      caption: `TTR(90 %, 100 ms) with each set: ${place}; median (least to greatest)`,
      head: ['Estimator', ...disks.map(({heading}) => heading)],
      rows: estimatorGroups(runs).map((group) => [group.name, ...disks.map(({heading}) =>
        shown(heading === 'Slow disk' ? group.slow : group.disk, ms))]),
    },
  });
}

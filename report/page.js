// SPDX-License-Identifier: MIT
// The page: which sections there are, and what is not shown and why.
'use strict';

const missing = []; // sentences; `what is typed` stands between backquotes

function section(title, ...content) {
  const shownContent = content.flat().filter(Boolean);
  if (shownContent.length === 0) return null;
  const id = title.toLowerCase().replace(/[^a-z]+/g, '-');
  return element('section', {id, 'aria-labelledby': `${id}-title`},
    element('h2', {id: `${id}-title`}, title), shownContent);
}

function runSections(runs) {
  if (runs.length === 0) {
    missing.push('TTR, bounded mutator utilization and latencies of restores: give reports of `rouse restore` '
      + '(`--json`, or `--report FILE`), of the demo or of the benchmarks.');
    return [];
  }
  const workloads = grouped(runs, 'workload');
  const tabled = workloads.map(([workload, of]) => [workload, of.filter((run) => run.ttr_table)])
    .filter(([, of]) => of.length > 0);
  const latencies = workloads.map(([workload, of]) => latencyFigure(workload, of)).filter(Boolean);
  if (tabled.length === 0) missing.push('Bounded mutator utilization: the reports have no `ttr_table`.');
  if (latencies.length === 0 && data.stalls.length === 0)
    missing.push('Latencies of faults: no restore in these reports had a fault whose latency was noted.');
  return [
    section('At a glance', glance(runs)),
    section('Time to responsiveness',
      element('p', {class: 'about'}, 'TTR(90 %, 100 ms): the least time after the request from which on the vCPUs '
        + 'never again spend more than 10 % of any window of 100 ms or longer waiting for the restore.'),
      workloads.map(([workload, of]) => ttrFigure(workload, of))),
    section('Utilization that is kept', tabled.map(([workload, of]) => guaranteedFigure(workload, of))),
    section('Faults', latencies),
  ];
}

function stallSection() {
  if (data.stalls.length === 0) {
    missing.push('Utilization over time, least utilization by window and the distribution of all stalls: '
      + 'keep the stalls with `rouse restore --stall-log FILE` and give `--stalls NAME=FILE`, once for each policy.');
    return null;
  }
  return section('Stalls', utilizationFigure(), bmuFigure(), stallLatencyFigure());
}

function memorySection() {
  if (data.memory === null) {
    missing.push('The map of the memory: give `--working-set FILE`, the set that was loaded, and `--touched FILE`, '
      + 'what was touched (`rouse restore --policy lazy --record FILE:SECONDS`, or `rouse trace`).');
    return null;
  }
  return section('Memory', memoryFigure(data.memory));
}

function estimatorSections(runs) {
  if (runs.length === 0) {
    missing.push('Estimators: give `estimators.json` of `make bench-estimators`.');
    return null;
  }
  const places = [...d3.group(runs, (run) => `${run.workload}, ${run.ram}`)];
  return section('Estimators of the working set',
    places.flatMap(([place, of]) => [qualityFigure(place, of), worthFigure(place, of)]));
}

function targetSection() {
  const targets = data.sources.flatMap((source) => source.targets);
  return section('Targets', targets.length === 0 ? null : element('ul', {class: 'plain'},
    targets.map(({met, text}) => element('li', {},
      element('span', {class: met ? 'met' : met === null ? 'unsure' : 'missed'},
        met ? '✓ met' : met === null ? '? unsure' : '✗ missed'),
      text.replace(/^(met|MISSED|UNSURE)\s+/, '')))));
}

function skippedSection() {
  const skipped = data.sources.flatMap((source) => source.skipped);
  return section('Skipped', skipped.length === 0 ? null : element('ul', {},
    skipped.map(({name, reason}) => element('li', {}, `${name}: ${reason}`))));
}

function failedSection() {
  const failed = data.sources.flatMap((source) => source.failed);
  return section('Failed', failed.length === 0 ? null : element('ul', {},
    failed.map(({name, reason}) => element('li', {}, `${name}: ${reason}`))));
}

function missingSection() {
  return section('What is not shown', missing.length === 0 ? null
    : element('ul', {id: 'missing'}, missing.map((text) => element('li', {},
      text.split('`').map((part, index) => index % 2 ? element('code', {}, part) : part)))));
}

function originSection() {
  return section('Where the figures come from', data.sources.flatMap((source) => {
    const facts = Object.entries(source.environment);
    return [element('h3', {}, source.file), facts.length === 0
      ? element('p', {class: 'about'}, source.kind === 'restore' ? 'The report of one restore.' : 'It says nothing of its machine.')
      : element('dl', {}, facts.flatMap(([name, text]) =>
        [element('dt', {}, name.replaceAll('_', ' ')), element('dd', {}, text)]))];
  }));
}

function alertOfErrors() {
  const errors = d3.sum([...data.runs, ...data.estimators], (run) => run.integrity_errors ?? 0);
  return errors > 0 ? element('p', {class: 'alert', role: 'alert'},
    `${number(errors)} pages of guests had wrong contents after a restore. Nothing else on this page matters.`) : null;
}

function lead() {
  const parts = [];
  if (data.runs.length > 0)
    parts.push(`${number(data.runs.length)} ${data.runs.length === 1 ? 'restore' : 'restores'}`);
  if (data.estimators.length > 0) parts.push(`${number(data.estimators.length)} estimated sets`);
  if (data.stalls.length > 0)
    parts.push(`${number(data.stalls.length)} ${data.stalls.length === 1 ? 'log' : 'logs'} of stalls`);
  if (data.memory !== null) parts.push('the map of one guest’s memory');
  return `${parts.join(', ')}. Every figure is there as a table, too; nothing is loaded from elsewhere.`;
}

function build() {
  document.title = data.title;
  document.getElementById('title').textContent = data.title;
  document.getElementById('lead').textContent = lead();
  document.getElementById('footer').textContent = `Made by rouse report, Rouse ${data.rouse}.`;
  const sections = [...runSections(data.runs), stallSection(), memorySection(),
    estimatorSections(data.estimators), targetSection(), failedSection(), skippedSection(), missingSection(),
    originSection()].filter(Boolean);
  document.getElementById('main').append(...[alertOfErrors(), ...sections].filter(Boolean));
  document.getElementById('contents').append(element('ul', {}, sections.map((each) =>
    element('li', {}, element('a', {href: `#${each.id}`}, each.querySelector('h2').textContent)))));
  // On paper nothing can be opened.
  window.addEventListener('beforeprint', () => {
    for (const each of document.querySelectorAll('details')) each.open = true;
  });
}

build();

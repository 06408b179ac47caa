// Draws the figures of a page from its JSON; the same numbers stand in a table, for who reads no charts.
"use strict";

const UNITS = {
  count: (value) => (value === null ? "–" : value.toLocaleString(undefined, { notation: "compact" })),
  usd: (value) => (value === null ? "–" : `$${value.toLocaleString(undefined, { maximumSignificantDigits: 3 })}`),
  seconds: (value) =>
    value === null ? "–" : value < 1 ? `${Math.round(1000 * value)} ms` : `${Math.round(10 * value) / 10} s`,
};
const STYLES = [[], [6, 3], [2, 3], [10, 3, 2, 3], [1, 5], [12, 6]];
const plots = [];

function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return { lines: [1, 2, 3, 4, 5, 6].map((n) => of(`--line-${n}`)), text: of("--quiet"), grid: of("--grid") };
}

// Where no line leads from or to: seen as a point only.
function alone(values) {
  const known = (n) => values[n] !== null && values[n] !== undefined;
  return [...values.keys()].filter((n) => known(n) && !known(n - 1) && !known(n + 1));
}

function draw(figure, times, lines) {
  const colour = colours();
  const told = UNITS[figure.dataset.unit];
  const axis = { stroke: colour.text, grid: { stroke: colour.grid, width: 1 }, ticks: { stroke: colour.grid, width: 1 } };
  const width = () => Math.max(200, figure.clientWidth);
  const plot = new uPlot(
    {
      width: width(),
      height: 180,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.05 : 1] } },
      axes: [axis, { ...axis, size: 64, values: (_, marks) => marks.map(told) }],
      series: [
        {},
        ...lines.map((line, n) => ({
          label: line.label,
          stroke: colour.lines[n % colour.lines.length],
          dash: STYLES[n % STYLES.length],
          width: 2,
          spanGaps: false,
          points: { show: true, filter: (plot, n) => alone(plot.data[n]) },
          value: (_, value) => told(value ?? null),
        })),
      ],
    },
    [times, ...lines.map((line) => line.values)],
    figure,
  );
  new ResizeObserver(() => plot.setSize({ width: width(), height: 180 })).observe(figure);
  plots.push(plot);
}

async function load() {
  for (const box of document.querySelectorAll(".charts")) {
    const answer = await fetch(box.dataset.series ?? box.dataset.lines);
    if (!answer.ok) continue;
    const found = await answer.json();
    for (const figure of box.querySelectorAll("figure")) {
      const names = figure.dataset.chart?.split(" ");
      const labels = figure.dataset.labels?.split("|");
      const lines = names
        ? names.map((name, n) => ({ label: labels[n], values: found.series[name] }))
        : found.lines.map((line) => ({ label: line.label, values: line.counts }));
      draw(figure, found.times, lines);
    }
  }
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const plot of plots.splice(0)) plot.destroy();
  load();
});
load();

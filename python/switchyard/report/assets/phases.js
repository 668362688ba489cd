"use strict";
// Percentiles of every phase, on one logarithmic scale.

function drawPhases(of) {
  if (!show("phases", of.phases.length > 0)) return;
  const phases = of.phases;
  const names = phases.map((phase) => phase.name);
  const element = document.getElementById("phase-chart");
  element.style.height = `${Math.max(12, 6 + 1.7 * names.length)}rem`;
  const marks = [["p50", "median", 0, "circle"], ["p95", "95 %", 4, "diamond"], ["p99", "99 %", 1, "square"], ["max", "longest", 5, "x"]];
  const ends = phases.flatMap((phase) => [phase.p50, phase.max, null]);
  const places = phases.flatMap((phase) => [phase.name, phase.name, null]);
  draw(element, () => ({
    data: [
      { type: "scatter", mode: "lines", x: ends, y: places, line: { color: colour("faint"), width: 2 }, showlegend: false, hoverinfo: "skip" },
      ...marks.map(([key, name, at, symbol]) => ({
        type: "scatter", mode: "markers", name, x: phases.map((phase) => phase[key]), y: names,
        marker: { color: categories[at], symbol, size: 10 }, hovertemplate: `%{y}, ${name}: %{x:,.1f} us<extra></extra>`,
      })),
    ],
    layout: {
      xaxis: axisTitle("microseconds", { type: "log", dtick: 1 }),
      yaxis: { autorange: "reversed", categoryorder: "array", categoryarray: names, tickfont: { size: 11 } },
    },
  }));
  const rows = phases.map((phase) => [phase.name, phase.count, phase.p50, phase.p95, phase.p99, phase.max]);
  table(document.getElementById("phase-table"), ["", "number", "median", "95 %", "99 %", "longest"], rows);
}

"use strict";
// Bytes between ranks and waits for ranks, side by side.

function heatmap(title, values, words, unit) {
  const ranks = values.map((_, rank) => rank);
  const peak = largest(values.map(largest));
  return () => ({
    data: [{
      type: "heatmap", z: values, x: ranks, y: ranks, zmin: 0, zmax: peak > 0 ? peak : 1, xgap: ranks.length > 32 ? 0 : 1, ygap: ranks.length > 32 ? 0 : 1,
      colorscale: [[0, colour("low")], [0.5, colour("middle")], [1, colour("high")]],
      colorbar: { title: { text: unit, side: "right" }, thickness: 12, outlinewidth: 0 },
      hovertemplate: `rank %{y} ${words} rank %{x}: %{z:,.1f} ${unit}<extra></extra>`,
    }],
    layout: {
      title,
      showlegend: false,
      margin: { l: 56, r: 84, t: 40, b: 48 },
      xaxis: axisTitle("rank", { range: [-0.5, ranks.length - 0.5], constrain: "domain", dtick: Math.ceil(ranks.length / 16), showgrid: false }),
      yaxis: axisTitle("rank", { range: [ranks.length - 0.5, -0.5], constrain: "domain", scaleanchor: "x", dtick: Math.ceil(ranks.length / 16), showgrid: false }),
    },
  });
}

function pairs(values) {
  const all = [];
  values.forEach((row, from) => row.forEach((value, to) => from !== to && all.push([from, to, value])));
  return all.sort((a, b) => b[2] - a[2]).slice(0, 10);
}

// The rank that others wait for most, in a sentence.
function lateSentence(matrix) {
  const ranks = matrix.wait_us.length;
  const others = (column) => matrix.wait_us.reduce((sum, row, rank) => sum + (rank === column ? 0 : row[column]), 0) / Math.max(ranks - 1, 1);
  const by = matrix.wait_us.map((_, rank) => others(rank));
  const late = by.indexOf(largest(by));
  const middle = [...by].sort((a, b) => a - b)[Math.floor(ranks / 2)];
  return `In a ${matrix.name} the others wait ${format(by[late], "us")} for rank ${late}, and ${format(middle, "us")} for the rank in the middle.`;
}

// Bytes and waits of each kind of call, as far as they are known.
function matrixCharts(matrices) {
  const mega = (bytes) => bytes && bytes.map((row) => row.map((each) => each / 1e6));
  return matrices.flatMap((matrix) => [
    { title: `Bytes of a ${matrix.name}`, values: mega(matrix.bytes), words: "to", unit: "MB" },
    { title: `Waits in a ${matrix.name}`, values: matrix.wait_us, words: "waits for", unit: "us" },
  ]).filter((each) => each.values);
}

function drawMatrices(of) {
  const charts = document.getElementById("matrix-charts");
  charts.querySelectorAll(".chart").forEach((chart) => drawn.delete(chart) && Plotly.purge(chart));
  charts.replaceChildren();
  if (!show("matrices", of.matrices.length > 0)) return;
  const rows = [];
  const all = matrixCharts(of.matrices);
  // All places first: a chart takes the width that it finds.
  for (const each of all) charts.append((each.element = Object.assign(document.createElement("div"), { className: "chart" })));
  for (const { element, title, values, words, unit } of all) {
    draw(element, heatmap(title, values, words, unit));
    for (const [from, to, value] of pairs(values)) rows.push([title, from, to, format(value, unit)]);
  }
  const waited = of.matrices.filter((matrix) => matrix.wait_us);
  document.getElementById("matrices-summary").textContent =
    waited.length > 0 && of.node_by_rank.length > 1 ? waited.map(lateSentence).join(" ") : "";
  table(document.getElementById("matrix-table"), ["", "rank", "rank", ""], rows);
}

"use strict";
// What all charts and tables have in common.

const drawn = new Map(); // element -> what draws it again, in other colours

// `build()` returns {data, layout}, in the colours of now.
function draw(element, build) {
  drawn.set(element, build);
  const { data, layout } = build();
  const ink = colour("ink");
  const axis = { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line"), automargin: true, fixedrange: true };
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: ink, family: "system-ui, sans-serif", size: 13 },
    margin: { l: 48, r: 16, t: layout.title ? (layout.showlegend === false ? 40 : 72) : 40, b: 44 },
    dragmode: false,
    legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0 },
    hoverlabel: { bgcolor: colour("panel"), font: { color: ink } },
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
  if (layout.title) whole.title = { text: layout.title, font: { size: 15 }, yref: "container", y: 1, yanchor: "top", pad: { t: 10 } };
  if (layout.yaxis2) whole.yaxis2 = { ...axis, ...layout.yaxis2 };
  return Plotly.react(element, data, whole, { responsive: true, displayModeBar: false, displaylogo: false });
}

themeListeners.push(() => drawn.forEach((build, element) => draw(element, build)));

// Of more numbers than a call can have arguments.
function largest(values) {
  return values.reduce((most, each) => (each > most ? each : most), -Infinity);
}

function axisTitle(text, more = {}) {
  return { title: { text }, ...more };
}

function format(value, unit = "") {
  if (value === null || value === undefined) return "";
  const digits = value !== 0 && Math.abs(value) < 10 ? 2 : Math.abs(value) < 100 ? 1 : 0;
  return value.toLocaleString("en", { maximumFractionDigits: digits }) + (unit && ` ${unit}`);
}

// How much the heaviest has, by the mean.
function times(value) {
  return `${value.toFixed(2)} times the mean`;
}

// Rows of texts and numbers, under heads.
function table(element, heads, rows) {
  const whole = document.createElement("table");
  const row = (cells, kind) => {
    const line = document.createElement("tr");
    for (const cell of cells) {
      const part = document.createElement(kind);
      if (kind === "th") part.scope = "col";
      part.textContent = typeof cell === "number" ? format(cell) : cell ?? "";
      line.append(part);
    }
    return line;
  };
  whole.append(row(heads, "th"), ...rows.map((cells) => row(cells, "td")));
  element.replaceChildren(whole);
}

function show(id, shown) {
  document.getElementById(id).hidden = !shown;
  return shown;
}

"use strict";
// The trace: a lane for each worker of each rank, and moves that buttons and keys make.

function timelineLines(timeline, only) {
  return timeline.names.map((name, at) => {
    const x = [];
    const y = [];
    for (const [lane, of, begin, length] of timeline.spans) {
      if (of !== at) continue;
      x.push(begin, begin + length, null);
      y.push(lane, lane, null);
    }
    return {
      type: "scatter", mode: "lines", name, x, y, connectgaps: false, visible: only === "" || only === name || "legendonly",
      // What holds others is drawn first, and wider.
      line: { color: categories[at % categories.length], width: name.includes("/") ? 9 : 17 }, opacity: name.includes("/") ? 1 : 0.35,
      text: y.map((lane) => timeline.lanes[lane] ?? ""), hovertemplate: `${name}, %{text}: at %{x:,.1f} us<extra></extra>`,
    };
  }).sort((a, b) => b.line.width - a.line.width);
}

// Where a move leads from a range; all of them stay within the trace.
function moved(range, move, end) {
  const [low, high] = range;
  const width = high - low;
  const at = (from, wide) => {
    const begin = Math.max(0, Math.min(from, end - wide));
    return [begin, Math.min(end, begin + wide)];
  };
  if (move === "in") return at(low + width / 4, width / 2);
  if (move === "out") return at(low - width / 2, width * 2);
  if (move === "left") return at(low - width / 4, width);
  if (move === "right") return at(low + width / 4, width);
  return [0, end];
}

const keyMoves = { "+": "in", "=": "in", "-": "out", ArrowLeft: "left", ArrowRight: "right", 0: "all" };

function save(text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "switchyard-trace.json";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function drawTimeline(page, trace) {
  const timeline = page.timeline;
  if (!show("timeline", timeline !== null)) return;
  const chart = document.getElementById("timeline-chart");
  const choice = document.getElementById("phase");
  choice.replaceChildren(new Option("all", ""), ...timeline.names.map((name) => new Option(name, name)));
  chart.style.height = `${Math.max(16, 9 + 1.6 * timeline.lanes.length)}rem`;
  const end = largest(timeline.spans.map((span) => span[2] + span[3]));
  let range = [0, end];
  const redraw = () => draw(chart, () => ({
    data: timelineLines(timeline, choice.value),
    layout: {
      xaxis: axisTitle("microseconds", { range }),
      yaxis: {
        range: [timeline.lanes.length - 0.5, -0.5], tickvals: timeline.lanes.map((_, lane) => lane), ticktext: timeline.lanes,
        showgrid: false, zeroline: false, tickfont: { size: 11 },
      },
    },
  }));
  const go = (move) => {
    range = moved(range, move, end);
    redraw();
  };
  choice.onchange = redraw;
  document.querySelectorAll("[data-move]").forEach((button) => (button.onclick = () => go(button.dataset.move)));
  chart.onkeydown = (event) => {
    if (!(event.key in keyMoves) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    go(keyMoves[event.key]);
  };
  document.getElementById("save").onclick = () => save(trace);
  document.getElementById("left-out").textContent =
    timeline.left_out > 0 ? `The chart has the longest ${timeline.spans.length} spans; the file has ${timeline.left_out} more.` : "";
  redraw();
}

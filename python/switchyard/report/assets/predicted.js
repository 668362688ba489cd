"use strict";
// What a plan predicts, with its intervals, and what was measured of it.

function inInterval(each) {
  return each.measured_us >= each.low_us && each.measured_us <= each.high_us;
}

function predictedSentence(all) {
  const measured = all.filter((each) => each.measured_us !== null);
  if (measured.length === 0) return "Nothing of what the plan predicts was measured in these files: mode, ranks and tokens must be the same.";
  return `Of ${measured.length} predictions that were measured, ${measured.filter(inInterval).length} have the measurement in their interval.`;
}

const predictedLabel = (each) => `${each.ranks} x ${each.tokens}, ${each.mode}`;

function predictedLines(all) {
  return ["dispatch", "combine"].flatMap((call, at) => {
    const of = all.filter((each) => each.call === call);
    const measured = of.filter((each) => each.measured_us !== null);
    return [
      {
        type: "scatter", mode: "markers", name: `${call}, predicted`, x: of.map(predictedLabel), y: of.map((each) => each.us),
        marker: { color: categories[at], symbol: "line-ew-open", size: 14, line: { width: 3 } },
        error_y: {
          type: "data", symmetric: false, array: of.map((each) => each.high_us - each.us),
          arrayminus: of.map((each) => each.us - each.low_us), color: categories[at], thickness: 2, width: 5,
        },
        customdata: of.map((each) => each.bottleneck), hovertemplate: "%{x}: %{y:,.0f} us, waits for %{customdata}<extra></extra>",
      },
      {
        type: "scatter", mode: "markers", name: `${call}, measured`, x: measured.map(predictedLabel), y: measured.map((each) => each.measured_us),
        marker: { color: categories[at], symbol: "circle", size: 9, line: { color: colour("ink"), width: 1 } },
      },
    ];
  });
}

// What each resource of a dispatch needs, one beside the other.
function drawParts(all) {
  const of = all.filter((each) => each.call === "dispatch" && Object.keys(each.parts_us).length > 0);
  const names = Object.keys(of[0]?.parts_us ?? {});
  if (!show("parts-chart", names.length > 0) || !show("parts-hint", true)) return;
  const words = { fixed: "fixed cost and hops", sms: "SMs", memory: "memory", link: "NVLink", nic: "NIC", fill: "filling" };
  draw(document.getElementById("parts-chart"), () => ({
    data: names.map((name, at) => ({
      type: "bar", name: words[name] ?? name, x: of.map(predictedLabel), y: of.map((each) => each.parts_us[name]),
      marker: { color: categories[at] }, hovertemplate: `%{x}, ${words[name] ?? name}: %{y:,.0f} us<extra></extra>`,
    })),
    layout: {
      title: "What a dispatch needs of each resource", barmode: "group",
      xaxis: axisTitle("ranks x tokens a rank", { type: "category" }), yaxis: axisTitle("microseconds", { type: "log", dtick: 1 }),
    },
  }));
}

function drawPredicted(page) {
  const all = page.predicted;
  if (!show("predicted", all.length > 0)) return;
  document.getElementById("predicted-summary").textContent = predictedSentence(all);
  draw(document.getElementById("predicted-chart"), () => ({
    data: predictedLines(all),
    layout: {
      xaxis: axisTitle("ranks x tokens a rank", { type: "category" }), yaxis: axisTitle("microseconds", { type: "log", dtick: 1 }),
    },
  }));
  drawParts(all);
  const rows = all.map((each) => [
    `${each.call}, ${each.ranks} ranks, ${each.tokens} tokens, ${each.mode}`, each.us, `${format(each.low_us)} to ${format(each.high_us)}`,
    each.bottleneck, each.measured_us,
    each.measured_us === null ? "" : inInterval(each) ? "yes" : `no: ${format((100 * each.measured_us) / each.us - 100)} %`,
  ]);
  table(document.getElementById("predicted-table"), ["", "predicted us", "9 of 10", "waits for", "measured us", "in the interval"], rows);
}

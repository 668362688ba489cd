"use strict";
// Tokens of each expert at a point in time, and how unequal GPUs were over time.

function imbalanceOf(tokens, rankOf) {
  const load = [];
  tokens.forEach((count, expert) => (load[rankOf[expert]] = (load[rankOf[expert]] ?? 0) + count));
  const mean = load.reduce((sum, each) => sum + each, 0) / load.length;
  return mean > 0 ? largest(load) / mean : 1;
}

function drawExpertsAt(of, time) {
  const tokens = of.tokens[time];
  const slider = document.getElementById("time");
  const imbalance = of.tokens.map((each) => imbalanceOf(each, of.rank_of));
  const words = `${of.labels[time]}: the heaviest rank has ${times(imbalance[time])}`;
  document.getElementById("time-shown").textContent = words;
  slider.setAttribute("aria-valuetext", words);
  const most = Math.max(largest(of.tokens.map(largest)), 1);
  draw(document.getElementById("expert-chart"), () => ({
    data: [{
      type: "bar", x: tokens.map((_, expert) => expert), y: tokens,
      marker: { color: of.rank_of.map((rank) => categories[rank % 2]) },
      customdata: of.rank_of,
      hovertemplate: "expert %{x} (rank %{customdata}): %{y:,.0f} tokens<extra></extra>",
    }],
    layout: {
      title: "Tokens of each expert", bargap: 0.1, showlegend: false,
      xaxis: axisTitle("expert; colours change with the rank", { showgrid: false }),
      yaxis: axisTitle("tokens", { range: [0, most * 1.05] }),
    },
  }));
  const many = of.tokens.length > 1;
  if (many) {
    draw(document.getElementById("imbalance-chart"), () => ({
      data: [
        { type: "scatter", mode: "lines", x: imbalance.map((_, at) => at), y: imbalance, text: of.labels, line: { color: colour("accent") }, hovertemplate: "%{text}: %{y:.2f}<extra></extra>" },
        { type: "scatter", mode: "markers", x: [time], y: [imbalance[time]], marker: { size: 12, color: categories[5] }, hoverinfo: "skip" },
      ],
      layout: {
        title: "Heaviest rank, times the mean", showlegend: false,
        xaxis: axisTitle("time", { showticklabels: false }), yaxis: { rangemode: "tozero" },
      },
    }));
  }
  const busiest = tokens.map((count, expert) => [`expert ${expert}`, of.rank_of[expert], count]).sort((a, b) => b[2] - a[2]);
  table(document.getElementById("expert-table"), ["", "rank", "tokens"], busiest.slice(0, 20));
}

function drawExperts(of) {
  if (!show("experts", of.experts !== null && of.experts.labels.length > 0)) return;
  const slider = document.getElementById("time");
  const last = of.experts.labels.length - 1;
  show("time-choice", true);
  slider.hidden = last === 0;
  document.querySelector("label[for=time]").hidden = last === 0;
  show("imbalance-chart", last > 0);
  slider.max = last;
  slider.value = 0;
  slider.oninput = () => drawExpertsAt(of.experts, Number(slider.value));
  drawExpertsAt(of.experts, 0);
}

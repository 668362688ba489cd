"use strict";
// Load of GPUs and traffic between nodes, as experts lie now and as a plan would place them.

const percent = (part, all) => `${format((100 * part) / all)} %`;

function drawBalanceAt(balance, at) {
  const now = balance[0];
  const plan = balance[at + 1];
  const total = now.load.reduce((sum, each) => sum + each, 0);
  const slider = document.getElementById("replicas");
  document.getElementById("replicas-shown").textContent = `${plan.replicas}, ${plan.replicas - now.replicas} of them replicas`;
  slider.setAttribute("aria-valuetext", `${plan.replicas} experts on GPUs`);
  let words = `The heaviest GPU has ${times(plan.imbalance)} load instead of ${now.imbalance.toFixed(2)}`;
  if (plan.crossing !== null && now.crossing !== null)
    words += `; ${percent(plan.crossing, total)} of the tokens leave their node instead of ${percent(now.crossing, total)}`;
  document.getElementById("balance-summary").textContent = `${words}.`;
  const gpus = now.load.map((_, gpu) => gpu);
  const most = largest(balance.flatMap((each) => each.load));
  draw(document.getElementById("load-chart"), () => ({
    data: [
      { type: "bar", name: "now", x: gpus, y: now.load, marker: { color: categories[7] } },
      { type: "bar", name: "planned", x: gpus, y: plan.load, marker: { color: categories[0] } },
      { type: "scatter", mode: "lines", name: "mean", x: [-0.5, gpus.length - 0.5], y: [total / gpus.length, total / gpus.length], line: { color: colour("ink"), dash: "dot", width: 1 } },
    ],
    layout: {
      title: "Tokens of each GPU", barmode: "group",
      xaxis: axisTitle("GPU", { dtick: Math.ceil(gpus.length / 16), showgrid: false }),
      yaxis: axisTitle("tokens", { range: [0, most * 1.05] }),
    },
  }));
  drawReplicas(balance, at, total);
}

// Both by the number of replicas, with what is chosen marked.
function drawReplicas(balance, at, total) {
  const plans = balance.slice(1);
  const x = plans.map((plan) => plan.replicas);
  const crosses = balance.every((each) => each.crossing !== null);
  const lines = (y, name, colourOf, more) => [
    { type: "scatter", mode: "lines+markers", name, x, y, line: { color: colourOf }, ...more },
    { type: "scatter", mode: "markers", x: [x[at]], y: [y[at]], marker: { size: 14, symbol: "diamond", color: colourOf }, showlegend: false, hoverinfo: "skip", ...more },
  ];
  draw(document.getElementById("replica-chart"), () => ({
    data: [
      ...lines(plans.map((plan) => plan.imbalance), "heaviest GPU, times the mean", categories[0], {}),
      ...(crosses ? lines(plans.map((plan) => (100 * plan.crossing) / total), "% of tokens that leave their node", categories[5], { yaxis: "y2" }) : []),
    ],
    layout: {
      title: crosses ? "Load and traffic by replicas" : "Load by replicas",
      xaxis: axisTitle("experts on GPUs", { tickvals: x }),
      yaxis: axisTitle("times the mean", { rangemode: "tozero" }),
      ...(crosses && { yaxis2: axisTitle("%", { overlaying: "y", side: "right", rangemode: "tozero", showgrid: false }) }),
    },
  }));
}

function drawBalance(of) {
  const balance = of.balance;
  if (!show("balance", balance.length > 1)) return;
  const slider = document.getElementById("replicas");
  slider.max = balance.length - 2;
  slider.value = 0;
  slider.oninput = () => drawBalanceAt(balance, Number(slider.value));
  drawBalanceAt(balance, 0);
  const rows = balance.map((each, index) => [index === 0 ? "now" : "planned", each.replicas, each.imbalance.toFixed(2), each.crossing]);
  table(document.getElementById("balance-table"), ["", "experts on GPUs", "heaviest GPU, times the mean", "tokens that leave their node"], rows);
}

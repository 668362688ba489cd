"use strict";
// Unpacks what this file holds, and draws it.

async function unpack(id) {
  const packed = document.getElementById(id).textContent;
  if (packed === "") return "";
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

async function loadPlotly() {
  const script = document.createElement("script");
  script.textContent = await unpack("plotly");
  document.head.append(script);
}

function showFacts(facts) {
  document.getElementById("facts").replaceChildren(...facts.map(([name, value]) => {
    const fact = document.createElement("div");
    const term = document.createElement("dt");
    const words = document.createElement("dd");
    term.textContent = name;
    words.textContent = value;
    fact.append(term, words);
    return fact;
  }));
}

function drawCase(of) {
  drawMatrices(of);
  drawExperts(of);
  drawBalance(of);
  drawPhases(of);
}

function chooseCase(cases) {
  const choice = document.getElementById("case");
  choice.replaceChildren(...cases.map((each, at) => new Option(each.name, at)));
  show("case-choice", cases.length > 1);
  choice.onchange = () => drawCase(cases[Number(choice.value)]);
  if (cases.length > 0) {
    choice.value = cases.length - 1;
    drawCase(cases[cases.length - 1]);
  }
}

async function main() {
  startTheme();
  if (typeof DecompressionStream === "undefined") throw new Error("this page needs a browser of 2023 or newer");
  const page = JSON.parse(await unpack("data"));
  await loadPlotly();
  showFacts(page.facts);
  chooseCase(page.cases);
  drawPredicted(page);
  drawTimeline(page, await unpack("trace"));
  document.documentElement.dataset.ready = "true";
}

main().catch((error) => {
  const alert = document.getElementById("alert");
  alert.textContent = `The charts could not be drawn: ${error.message}`;
  alert.hidden = false;
  throw error;
});

"use strict";
// What the page can do besides being read: sort its tables, search its flame graphs, open everything for the printer.
// Names of the target are never made into markup here.

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const isNumber = head.classList.contains("number");
      const before = head.getAttribute("aria-sort");
      const order = before ? (before === "ascending" ? "descending" : "ascending") : isNumber ? "descending" : "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const key = (row) => (isNumber ? Number(row.cells[column].dataset.key) : row.cells[column].textContent);
      const compare = (a, b) => (isNumber ? key(a) - key(b) : key(a).localeCompare(key(b)));
      const sign = order === "ascending" ? 1 : -1;
      const body = table.tBodies[0];
      body.append(...Array.from(body.rows).sort((a, b) => sign * compare(a, b)));
    });
  });
}

// The timeline changes its height where threads are hidden or a moment is kept.
const timeline = document.querySelector("#timeline iframe");
const fit = () => {
  const svg = timeline.contentDocument && timeline.contentDocument.querySelector("svg");
  if (!svg) return;
  new ResizeObserver(() => {
    const { width, height } = svg.getBoundingClientRect();
    if (width && height) timeline.style.aspectRatio = `${width}/${height}`;
  }).observe(svg);
};
timeline.addEventListener("load", fit);
fit();

const form = document.getElementById("search");
const term = document.getElementById("term");
const answer = form.querySelector("output");
const choices = Array.from(document.querySelectorAll(".choice"));
const find = () => {
  const chosen = choices.find((choice) => choice.checked);
  const picture = document.querySelector(`#flame-${chosen.value} iframe`).contentWindow;
  answer.textContent = picture.searchFor ? picture.searchFor(term.value) : "";
};
form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
term.addEventListener("input", find);
choices.forEach((choice) => choice.addEventListener("change", find));

let opened = [];
addEventListener("beforeprint", () => {
  opened = Array.from(document.querySelectorAll("details:not([open])"));
  opened.forEach((details) => (details.open = true));
});
addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));

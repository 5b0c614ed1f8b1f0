"use strict";

// A run's lines stand out while its row is pointed at, or has the focus; a click, or Enter, keeps them so.
let kept = null;

function standOut(run) {
  document.body.classList.toggle("one-stands-out", run !== null);
  for (const one of document.querySelectorAll("[data-run]")) {
    one.classList.toggle("stands-out", one.dataset.run === run);
  }
}

for (const row of document.querySelectorAll("tr[data-run]")) {
  const run = row.dataset.run;
  const keep = () => { kept = kept === run ? null : run; standOut(kept); };
  row.addEventListener("pointerenter", () => standOut(run));
  row.addEventListener("pointerleave", () => standOut(kept));
  row.addEventListener("focus", () => standOut(run));
  row.addEventListener("blur", () => standOut(kept));
  row.addEventListener("click", keep);
  row.addEventListener("keydown", (event) => { if (event.key === "Enter") keep(); });
}

// A table is sorted by the column whose name is pressed; what is not known stands last.
function valueOf(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" || text === "–" || text === "nan" ? null : Number.isNaN(number) ? text : number;
}

function compare(left, right) {
  if (left === null || right === null) return (left === null) - (right === null);
  if (typeof left === "number" && typeof right === "number") return left - right;
  return String(left).localeCompare(String(right), undefined, { numeric: true });
}

function sortBy(table, column, header) {
  const direction = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((first, second) => {
    const left = valueOf(first, column), right = valueOf(second, column);
    return left === null || right === null ? compare(left, right) : direction * compare(left, right);
  });
  body.append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent;
    button.addEventListener("click", () => sortBy(table, column, header));
    header.replaceChildren(button);
  });
}

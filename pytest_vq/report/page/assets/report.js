"use strict";
// Sorts and filters the table of results. Without this script the table is all there, in the order it was written.
(() => {
  const ALL_DRAWN = 500; // of more rows only those in sight are drawn, so that sorting answers at once
  const MARGIN = 20; // rows drawn above and below those in sight

  const table = document.getElementById("results");
  if (!table) return;
  const body = table.tBodies[0];
  const scroller = table.closest(".scroll");
  const heads = Array.from(table.tHead.rows[0].cells);
  const filters = document.getElementById("filters");
  const status = document.getElementById("shown");
  const rows = Array.from(body.rows, readRow);
  const isWindowed = rows.length > ALL_DRAWN;
  const spacers = [makeSpacer(), makeSpacer()];
  let shown = rows;
  let sorted = { column: -1, ascending: true };
  let rowHeight = 0;
  let drawnFrom = -1;

  // What a row is sorted and filtered by is read once: the figures as stored, not as they are rounded for a reader.
  function readRow(element, place) {
    const keys = Array.from(element.cells, (cell, column) => {
      if (cell.dataset.key !== undefined) return Number(cell.dataset.key);
      const text = cell.textContent.trim().toLowerCase();
      return text === "" || heads[column].classList.contains("number") ? null : text;
    });
    const { category, scheme, verdict } = element.dataset;
    return { element, place, keys, model: element.cells[0].textContent.trim().toLowerCase(), category, scheme, verdict };
  }

  function makeSpacer() {
    const row = document.createElement("tr");
    row.className = "spacer";
    row.setAttribute("aria-hidden", "true");
    row.insertCell().colSpan = heads.length;
    return row;
  }

  // What was not measured stands last, whichever way the rest goes.
  function compare(a, b) {
    const [x, y] = [a.keys[sorted.column], b.keys[sorted.column]];
    if (x === null || y === null) return (x === null) - (y === null) || a.place - b.place;
    const order = x < y ? -1 : x > y ? 1 : 0;
    return (sorted.ascending ? order : -order) || a.place - b.place;
  }

  function update() {
    const wanted = Object.fromEntries(Array.from(filters.querySelectorAll("[data-filter]"), (f) => [f.dataset.filter, f.value]));
    const text = wanted.model.trim().toLowerCase();
    shown = rows.filter(
      (row) =>
        row.model.includes(text) &&
        ["category", "scheme", "verdict"].every((name) => !wanted[name] || row[name] === wanted[name]),
    );
    if (sorted.column >= 0) shown.sort(compare);
    status.textContent = `${shown.length} of ${rows.length} rows shown`;
    scroller.scrollTop = 0;
    drawnFrom = -1;
    draw();
  }

  function draw() {
    if (!isWindowed) {
      body.replaceChildren(...shown.map((row) => row.element));
      return;
    }
    const inSight = Math.ceil(scroller.clientHeight / rowHeight) + 3 * MARGIN;
    const wanted = Math.max(0, Math.floor(scroller.scrollTop / rowHeight) - MARGIN);
    const from = wanted - (wanted % MARGIN); // drawn anew every so many rows, and not at each step of a scroll
    if (from === drawnFrom) return;
    drawnFrom = from;
    const drawn = shown.slice(from, from + inSight);
    drawn.forEach((row, place) => row.element.setAttribute("aria-rowindex", String(from + place + 2)));
    spacers[0].cells[0].style.height = `${from * rowHeight}px`;
    spacers[1].cells[0].style.height = `${(shown.length - from - drawn.length) * rowHeight}px`;
    body.replaceChildren(spacers[0], ...drawn.map((row) => row.element), spacers[1]);
    table.setAttribute("aria-rowcount", String(shown.length + 1));
  }

  // Columns keep the width that all rows together need, whichever rows are drawn.
  function startWindow() {
    const widths = heads.map((head) => head.getBoundingClientRect().width);
    rowHeight = rows[0].element.getBoundingClientRect().height;
    heads.forEach((head, column) => (head.style.width = `${widths[column]}px`));
    table.style.width = `${widths.reduce((sum, width) => sum + width, 0)}px`;
    table.style.tableLayout = "fixed";
    scroller.classList.add("windowed");
    scroller.addEventListener("scroll", draw, { passive: true });
    window.addEventListener("resize", () => {
      drawnFrom = -1;
      draw();
    });
  }

  function sortBy(column) {
    sorted = { column, ascending: sorted.column === column ? !sorted.ascending : true };
    heads.forEach((head) => head.removeAttribute("aria-sort"));
    heads[column].setAttribute("aria-sort", sorted.ascending ? "ascending" : "descending");
    update();
  }

  function addButton(head, column) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(column));
    head.append(button);
  }

  heads.forEach(addButton);
  if (isWindowed) startWindow();
  filters.hidden = false;
  filters.addEventListener("input", update);
  filters.querySelector("button").addEventListener("click", () => {
    filters.querySelectorAll("[data-filter]").forEach((filter) => (filter.value = ""));
    update();
  });
  // On paper nothing scrolls, folds or can be chosen: every row and every reason is there.
  let unfolded = [];
  window.addEventListener("beforeprint", () => {
    body.replaceChildren(...rows.map((row) => row.element));
    unfolded = Array.from(document.querySelectorAll("details:not([open])"));
    unfolded.forEach((part) => (part.open = true));
  });
  window.addEventListener("afterprint", () => {
    unfolded.forEach((part) => (part.open = false));
    drawnFrom = -1;
    draw();
  });
  update();
})();

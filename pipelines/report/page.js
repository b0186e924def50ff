"use strict";

// Tables: a column head is a button that sorts. Undefined figures come last in both directions.
const collator = new Intl.Collator();

function compareKeys(x, y, isText, falling) {
  if (x === "" || y === "") return (x === "") - (y === "");
  const order = isText ? collator.compare(x, y) : x - y;
  return falling ? -order : order;
}

// Calls sort(column, compare) when a head is clicked; compare takes two keys.
function makeSortable(table, sort) {
  const heads = Array.from(table.tHead.rows[table.tHead.rows.length - 1].cells);
  heads.forEach((head, column) => {
    if (head.dataset.fixed !== undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const isText = head.dataset.text !== undefined;
      sort(column, (x, y) => compareKeys(x, y, isText, falling));
    });
  });
}

// The texts, thresholds and families of all goals and, of a report of many goals, the figures of their table; see goals.js.
const goalData = JSON.parse(document.getElementById("goal-data")?.textContent ?? "{}");

for (const table of document.querySelectorAll("table.sortable")) {
  if (goalData.table !== undefined && table.classList.contains("goals")) continue;
  const rows = Array.from(table.tBodies[0].rows);
  makeSortable(table, (column, compare) => {
    const keys = new Map(rows.map((row) => [row, row.cells[column].dataset.key]));
    rows.sort((a, b) => compare(keys.get(a), keys.get(b)));
    table.tBodies[0].append(...rows);
  });
}

// Heat maps: the cell under the pointer, or the one that arrow keys reached, is read out beside it.
const readout = document.createElement("div");
readout.className = "readout";
readout.setAttribute("role", "status");
readout.hidden = true;
document.body.append(readout);

function readOut(cursor, title, words) {
  const name = document.createElement("b");
  name.textContent = title;
  readout.replaceChildren(name, words);
  readout.hidden = false;
  const [cell, box] = [cursor.getBoundingClientRect(), readout.getBoundingClientRect()];
  const right = document.documentElement.clientWidth;
  const above = cell.top - box.height - 10;
  readout.style.left = Math.max(8, Math.min(right - box.width - 8, cell.left + cell.width / 2 - box.width / 2)) + "px";
  readout.style.top = (above > 8 ? above : cell.bottom + 10) + "px";
}

function largeBlock(cells) {
  const values = cells.dataset.values.split(" ");
  return {
    cells, height: 1, width: values.length,
    read: (_, column) => {
      const [, number, truth, over] = values[column].match(/^(-?[\d.e+-]*|_)(t?)(o?)$/);
      const known = number === "-" ? "no label" : number === "_" ? "score not over the threshold" : "score " + number;
        const achieved = number === "-" ? "" : over ? ", labelled a success" : ", not labelled a success";
      return [Number(cells.dataset.goal), known + achieved, truth !== ""];
    },
  };
}

function smallBlock(cells, columns, low, high) {
  const picture = cells.querySelector("img");
  const members = cells.dataset.goals.split(" ").map(Number);
  const holds = new Set();
  for (const [, start, row, length] of cells.querySelector("path").getAttribute("d").matchAll(/M(\d+) (\d+)\.\d+h(\d+)/g)) {
    for (let column = Number(start); column < Number(start) + Number(length); column++) holds.add(row + " " + column);
  }
  let pixels = null;
  const pixel = (row, column) => {
    if (pixels === null) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [columns, members.length];
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(picture, 0, 0);
      pixels = context.getImageData(0, 0, columns, members.length).data;
    }
    return pixels.subarray(4 * (row * columns + column), 4 * (row * columns + column) + 4);
  };
  return {
    cells, height: members.length, width: columns,
    read: (row, column) => {
      const [grey, , , opaque] = pixel(row, column);
      const score = low + ((high - low) * (grey + 0.5)) / 256;
      return [members[row], opaque ? "score about " + score.toFixed(2) : "no label", holds.has(row + " " + column)];
    },
  };
}

for (const figure of document.querySelectorAll(".heat")) {
  const film = figure.querySelector(".film");
  const pictures = figure.querySelectorAll(".reel > div");
  const overview = figure.querySelector(".overview");
  const [frames, span, low, high] = ["frames", "span", "low", "high"].map((name) => Number(figure.dataset[name]));
  const columns = Math.ceil(frames / span);
  const blocks = Array.from(figure.querySelectorAll(".cells"), (cells) =>
    cells.dataset.goals === undefined ? largeBlock(cells) : smallBlock(cells, columns, low, high)
  );
  const cursor = document.createElement("div");
  cursor.className = "cursor";
  let [place, row, column] = [0, 0, -1];

  const show = () => {
    const block = blocks[place];
    const [goal, words, holds] = block.read(row, column);
    const first = column * span;
    const last = Math.min(first + span, frames) - 1;
    const when = span > 1 ? "frames " + first + " to " + last : "frame " + first;
    cursor.style.left = (100 * column) / columns + "%";
    cursor.style.width = 100 / columns + "%";
    cursor.style.top = block.height === 1 ? "0" : "calc(" + (100 * row) / block.height + "% - 2px)";
    cursor.style.height = block.height === 1 ? "100%" : "calc(" + 100 / block.height + "% + 4px)";
    block.cells.append(cursor);
    const near = Math.floor((first * pictures.length) / frames);
    pictures.forEach((picture, index) => picture.classList.toggle("here", index === near));
    const truth = holds ? "the goal holds" : "the goal does not hold";
    const threshold = " (threshold " + goalData.thresholds[goal] + "); ";
    readOut(cursor, goalData.texts[goal], when + ": " + words + threshold + truth);
  };
  const hide = () => {
    readout.hidden = true;
    cursor.remove();
    pictures.forEach((picture) => picture.classList.remove("here"));
  };

  const point = (event) => {
    const cells = event.target.closest(".cells");
    if (cells === null) {
      hide();
      return;
    }
    const box = cells.getBoundingClientRect();
    place = blocks.findIndex((block) => block.cells === cells);
    const part = (share, number) => Math.max(0, Math.min(number - 1, Math.floor(share * number)));
    row = part((event.clientY - box.top) / box.height, blocks[place].height);
    column = part((event.clientX - box.left) / box.width, columns);
    show();
  };
  figure.addEventListener("pointermove", point);
  figure.addEventListener("pointerdown", point);
  figure.addEventListener("pointerleave", hide);
  film.addEventListener("blur", hide);

  film.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.target !== film || step === undefined || !blocks.length) return;
    event.preventDefault();
    const visible = overview.open ? blocks.length : blocks.filter((block) => !overview.contains(block.cells)).length;
    if (column < 0) {
      column = 0;
    } else {
      column = Math.max(0, Math.min(columns - 1, column + step[1]));
      row += step[0];
      if (row < 0) {
        place = Math.max(0, place - 1);
        row = place === 0 && step[0] < 0 && blocks[0].height === 1 ? 0 : blocks[place].height - 1;
      } else if (row >= blocks[place].height) {
        if (place + 1 < visible) {
          place += 1;
          row = 0;
        } else {
          row = blocks[place].height - 1;
        }
      }
    }
    place = Math.min(place, visible - 1);
    show();
    cursor.scrollIntoView({ block: "nearest", inline: "nearest" });
    show();
  });
}


// The table of goals: filtered by words and by family. A report of many goals has only its first rows as HTML; then rows are made
// from the page's data, 100 at a time, as the table is scrolled.
function staticRows(table, count) {
  const rows = Array.from(table.tBodies[0].rows);
  const names = rows.map((row) => row.cells[0].textContent.toLowerCase());
  return {
    matching: (matches) => {
      let shown = 0;
      rows.forEach((row, place) => {
        row.hidden = !matches(names[place], row.dataset.family);
        shown += !row.hidden;
      });
      count.textContent = shown.toLocaleString("en") + " of " + rows.length.toLocaleString("en") + " goals";
    },
  };
}

function rowsOfData(table, count) {
  const PORTION = 100;
  const PRECISION = 2; // the place of average precision among the columns of data, which has a bar
  const { texts, families } = goalData;
  const { ids, family, curves, columns, reasons, coloured } = goalData.table;
  const frame = table.closest(".scroll");
  const body = table.tBodies[0];
  const names = texts.map((text, goal) => (text + ids[goal]).toLowerCase());
  let order = goalData.table.order;
  let wanted = () => true;
  let shown = order;
  let drawn = 0;

  const words = ({ digits, values }, goal) => {
    const value = values[goal];
    if (typeof value === "string") return value;
    return digits ? (value / 10 ** digits).toFixed(digits).replace("-", "\u2212") : value.toLocaleString("en");
  };
  const key = ({ digits, values }, goal) => {
    const value = values[goal];
    if (Array.isArray(value)) return "";
    if (typeof value === "string") return value === "never fires" ? Infinity : parseFloat(value);
    return value / 10 ** digits;
  };

  const figureCell = (column, goal) => {
    const cell = document.createElement("td");
    cell.className = "number";
    cell.dataset.key = key(column, goal);
    const value = column.values[goal];
    if (Array.isArray(value)) {
      cell.innerHTML = reasons[value[0]]; // markup that the report made and escaped
    } else {
      cell.textContent = words(column, goal);
    }
    return cell;
  };
  const ink = (goal) => (family[goal] < coloured ? "var(--c" + (family[goal] % 8) + ")" : "var(--muted)");
  const precisionCell = (goal) => {
    const cell = figureCell(columns[PRECISION], goal);
    if (cell.dataset.key !== "") {
      const bar = document.createElement("i");
      bar.style.width = columns[PRECISION].values[goal] / 10 + "%";
      bar.style.background = ink(goal);
      const track = document.createElement("span");
      track.className = "bar";
      track.append(bar);
      cell.append(track);
    }
    return cell;
  };
  const curveCell = (goal) => {
    const cell = document.createElement("td");
    const levels = Array.from(curves[goal], (level) => parseInt(level, 36));
    if (levels.length === 0) return cell;
    const path = levels.map((level, place) => (place ? "V" : "M0 ") + (22 - level) + "H" + 2 * (place + 1)).join("");
    cell.innerHTML =
      '<svg class="spark" viewBox="-1 0 66 24" aria-hidden="true"><rect x="0" y="2" width="64" height="20"/><path d="' +
      path + '"/></svg>';
    return cell;
  };
  const makeRow = (goal) => {
    const row = document.createElement("tr");
    row.dataset.family = families[family[goal]];
    const name = document.createElement("th");
    name.scope = "row";
    name.dataset.key = texts[goal];
    const id = document.createElement("span");
    id.className = "id";
    id.textContent = ids[goal];
    name.append(texts[goal], id);
    const kind = document.createElement("td");
    kind.dataset.key = kind.textContent = families[family[goal]];
    const figures = columns.map((column, place) => (place === PRECISION ? precisionCell(goal) : figureCell(column, goal)));
    figures.splice(PRECISION + 1, 0, curveCell(goal));
    row.append(name, kind, ...figures);
    return row;
  };

  const draw = () => {
    const goals = shown.slice(drawn, drawn + PORTION);
    body.append(...goals.map(makeRow));
    drawn += goals.length;
    const more = drawn < shown.length ? ", the first " + drawn.toLocaleString("en") + " in the table: scroll it for more" : "";
    count.textContent = shown.length.toLocaleString("en") + " of " + order.length.toLocaleString("en") + " goals" + more;
  };
  const restart = () => {
    shown = order.filter(wanted);
    drawn = 0;
    body.replaceChildren();
    frame.scrollTop = 0;
    draw();
  };
  frame.addEventListener("scroll", () => {
    if (drawn < shown.length && frame.scrollTop + 2 * frame.clientHeight > frame.scrollHeight) draw();
  });
  makeSortable(table, (column, compare) => {
    // Columns of the table: name, family, columns of data up to average precision, curve, the other columns of data.
    const data = columns[column - (column > PRECISION + 2 ? 3 : 2)];
    const keys = column === 0 ? texts : column === 1 ? family.map((place) => families[place]) : texts.map((_, goal) => key(data, goal));
    order = order.slice().sort((a, b) => compare(keys[a], keys[b]));
    restart();
  });
  return {
    matching: (matches) => {
      wanted = (goal) => matches(names[goal], families[family[goal]]);
      restart();
    },
  };
}

const filter = document.querySelector(".filter");
if (filter) {
  const table = document.querySelector("table.goals");
  const [text, family, count] = ["input", "select", "output"].map((name) => filter.querySelector(name));
  family.append(...goalData.families.map((name) => new Option(name, name)));
  const rows = goalData.table === undefined ? staticRows(table, count) : rowsOfData(table, count);
  const apply = () => {
    const words = text.value.toLowerCase().split(/\s+/);
    rows.matching((name, own) => words.every((word) => name.includes(word)) && (family.value === "" || own === family.value));
  };
  text.addEventListener("input", apply);
  family.addEventListener("change", apply);
  filter.hidden = false;
  apply();
}

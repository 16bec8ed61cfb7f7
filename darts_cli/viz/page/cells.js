// Cells, their alphas, and the slider over the epochs of a search.

const ARROW = 6;
// Labels of 9.5 points are small on a screen.
const LARGE = 1.2;
const SMALL = 0.85;

function drawCell(layout, label, zoom) {
  const { width, height } = layout;
  return svg(
    "svg",
    {
      class: "cell",
      role: "img",
      "aria-label": `${label}: ${layout.text}`,
      viewBox: `-3 -3 ${width + 6} ${height + 6}`,
      width: zoom * (width + 6),
      height: zoom * (height + 6),
    },
    layout.wires.map(drawWire),
    layout.labels.map(drawLabel),
    layout.states.map(drawState),
  );
}

const colourOf = (operation) =>
  operation === null ? {} : { "--operation": page.operations[operation][1] };

// Draws a line that is level between points of the same height, and bent elsewhere.
function drawWire([operation, ...numbers]) {
  const points = [];
  for (let at = 0; at < numbers.length; at += 2) points.push([numbers[at], numbers[at + 1]]);
  const [tipX, tipY] = points.at(-1);
  points[points.length - 1] = [tipX - ARROW, tipY];
  // Lines begin under the box, so that none ends in the air at a rounded corner.
  let path = `M${points[0][0] - 10},${points[0][1]}L${points[0]}`;
  for (let at = 1; at < points.length; at += 1) {
    const [[x0, y0], [x1, y1]] = [points[at - 1], points[at]];
    const middle = (x0 + x1) / 2;
    path += y0 === y1 ? `L${x1},${y1}` : `C${middle},${y0} ${middle},${y1} ${x1},${y1}`;
  }
  const head = `M${tipX},${tipY}l${-ARROW - 1},-3v6z`;
  return svg(
    "g",
    { class: operation === null ? "wire join" : "wire", ...colourOf(operation) },
    svg("path", { d: path, class: "line" }),
    svg("path", { d: head, class: "head" }),
  );
}

function drawBox([x, y, width, height], radius) {
  return svg("rect", { x: x - width / 2, y: y - height / 2, width, height, rx: radius });
}

function drawLabel([x, y, width, height, operation]) {
  return svg(
    "g",
    { class: "label", ...colourOf(operation) },
    drawBox([x, y, width, height], height / 2),
    svg("text", { x, y: y + 3.4 }, page.operations[operation][0]),
  );
}

function drawState([x, y, width, height, kind, name, note]) {
  const lower = (text) => svg("tspan", { dy: 3, class: "lower" }, text);
  return svg(
    "g",
    { class: `state ${kind}` },
    drawBox([x, y, width, height], kind === "node" ? 10 : 4),
    svg("text", { x, y: y + (note ? -2 : 4) }, named(name, lower)),
    note ? svg("text", { x, y: y + 13, class: "note" }, note) : null,
  );
}

function cellFigure(layoutNumber, label, zoom = LARGE) {
  return scrolled(label, drawCell(page.layouts[layoutNumber], label, zoom));
}

const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

// The probabilities of one cell: a row per edge, a column per primitive.
class AlphaTable {
  constructor(run, cell) {
    this.run = run;
    this.cell = cell;
    // The same scale in all epochs, so that colours can be compared.
    const shares = run.snapshots.flatMap((snapshot) => snapshot.probabilities[cell].flat());
    this.least = shares.reduce((a, b) => Math.min(a, b));
    this.most = shares.reduce((a, b) => Math.max(a, b));
    this.readout = html("output", { class: "readout" }, "Point at a value, or walk with the arrows.");
    this.cells = run.edges.map(() => run.primitives.map(() => html("td", { tabindex: -1 })));
    this.at = null;
    this.cells[0][0].tabIndex = 0;
    const id = freshId();
    const caption =
      `${cell} cell: softmax of the alphas, in percent; ` +
      "chosen ones are framed, a stronger colour is more";
    this.element = html(
      "div", { class: "alphas" },
      html("p", { id, class: "told" }, caption),
      scrolled(`${cell} cell, alphas`, this.table(id)),
      this.readout,
    );
  }

  table(labelledBy) {
    const { run, cells } = this;
    const read = (event) => this.read(event.target.closest("td"));
    const columns = run.primitives.map((name) =>
      html("th", { scope: "col" }, html("span", {}, name)),
    );
    const rows = run.edges.map(([source, node], row) =>
      html("tr", {}, html("th", { scope: "row" }, namedHtml(source), " → ", node), cells[row]),
    );
    return html(
      "table",
      { class: "heat", role: "grid", "aria-readonly": "true", "aria-labelledby": labelledBy },
      html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "edge"), columns)),
      html("tbody", { onpointerover: read, onfocusin: read, onkeydown: (e) => this.walk(e) }, rows),
    );
  }

  show(snapshot) {
    this.snapshot = snapshot;
    this.cells.forEach((row, edge) =>
      row.forEach((td, column) => {
        const share = snapshot.probabilities[this.cell][edge][column];
        const chosen = snapshot.chosen[this.cell][edge] === column;
        td.textContent = (share / 100).toFixed(1);
        const strength = (share - this.least) / (this.most - this.least || 1);
        td.style.setProperty("--share", `${100 * strength}%`);
        td.className = chosen ? "chosen" : "";
        td.ariaSelected = String(chosen);
      }),
    );
    if (this.at) this.tell();
  }

  read(td) {
    if (!td) return;
    this.at = [td.parentElement.rowIndex - 1, td.cellIndex - 1];
    this.tell();
  }

  tell() {
    const [row, column] = this.at;
    const [source, node] = this.run.edges[row];
    const share = this.snapshot.probabilities[this.cell][row][column] / 10000;
    const chosen = this.snapshot.chosen[this.cell][row] === column ? ", chosen" : "";
    this.readout.textContent =
      `epoch ${this.snapshot.epoch}, ${namedText(source)} → ${node}, ` +
      `${this.run.primitives[column]}: ${share.toFixed(4)}${chosen}`;
  }

  walk(event) {
    const step = STEPS[event.key];
    const td = event.target.closest("td");
    if (!step || !td) return;
    const next = this.cells[td.parentElement.rowIndex - 1 + step[0]]?.[td.cellIndex - 1 + step[1]];
    event.preventDefault();
    if (!next) return;
    td.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }
}

// Builds the cells and alphas after one epoch, and the slider that chooses the epoch.
function explorer(run, level) {
  const { snapshots } = run;
  const id = freshId();
  const names = Object.keys(snapshots[0].cells);
  // One box per cell, which keeps its scroll position.
  const pictures = names.map((name) => scrolled(`${name} cell`));
  const tables = names.map((name) => new AlphaTable(run, name));
  const told = html("p", { class: "told", "aria-live": "polite" });
  const output = html("output", { for: id, class: "epoch" });
  const slider = html("input", {
    type: "range", id, min: 0, max: snapshots.length - 1, step: 1, value: snapshots.length - 1,
    oninput: () => show(),
  });
  const button = (text, step) =>
    html("button", { type: "button", onclick: () => { slider.valueAsNumber += step; show(); } }, text);
  const previous = button("Previous", -1);
  const next = button("Next", 1);

  function show() {
    const snapshot = snapshots[slider.valueAsNumber];
    output.textContent = `epoch ${whole(snapshot.epoch)} of ${whole(run.planned)}`;
    slider.ariaValueText = output.textContent;
    told.textContent = snapshot.text;
    // Not `disabled`, which would take the focus away after the last press.
    previous.ariaDisabled = String(slider.valueAsNumber === 0);
    next.ariaDisabled = String(slider.valueAsNumber === snapshots.length - 1);
    names.forEach((name, index) => {
      const label = `${name} cell after epoch ${snapshot.epoch}`;
      pictures[index].ariaLabel = label;
      pictures[index].replaceChildren(drawCell(page.layouts[snapshot.cells[name]], label, LARGE));
      tables[index].show(snapshot);
    });
  }

  show();
  return [
    html(
      "div", { class: "controls" },
      html("label", { for: id }, "Epoch"), previous, slider, next, output,
    ),
    told,
    names.map((name, index) => html("div", {}, heading(level, `${name} cell`), pictures[index])),
    heading(level, "Alphas"),
    html("div", { class: "pair" }, tables.map((table) => table.element)),
  ];
}

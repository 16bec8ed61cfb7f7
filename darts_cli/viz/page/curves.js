// Charts over epochs, with the values at the epoch that the pointer or the arrow keys choose.

const MARGIN = { left: 54, right: 12, top: 10, bottom: 36 };
const HEIGHT = 230;
// Ratio of the largest to the smallest value above which the scale is logarithmic.
const LOGARITHMIC = 10;

// Returns the columns of a run that belong to a curve, with the split or cell of their names.
function columnsOf(run, curve) {
  const column = new RegExp(curve.column);
  return Object.entries(run.columns)
    .map(([name, values]) => ({ part: column.exec(name)?.[1], values, epochs: run.epochs }))
    .filter(({ part, values }) => part && values.some((value) => value !== null));
}

// Builds one chart per curve of the page, with one line per split or cell.
function curvesOfRun(run, level) {
  return page.curves.map((curve) => {
    const series = columnsOf(run, curve).map((column) => ({ ...column, name: column.part }));
    return series.length ? new Chart(curve.title, curve.percent, series, level).element : null;
  });
}

// Builds one chart per curve and split or cell, with one line per run.
function curvesOfRuns(runs, level) {
  return page.curves.flatMap((curve) => {
    const all = runs.flatMap((run, style) =>
      columnsOf(run, curve).map((column) => ({ ...column, name: run.name, style })),
    );
    const parts = [...new Set(all.map((column) => column.part))];
    return parts.map((part) => {
      const series = all.filter((column) => column.part === part);
      const title = part === "lr" ? curve.title : `${curve.title}, ${part}`;
      return new Chart(title, curve.percent, series, level).element;
    });
  });
}

// Returns about `count` round numbers from `low` to `high`.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) {
    found.push(Number((at * step).toPrecision(10)));
  }
  return found;
}

// Returns at most five powers of ten; if there are fewer than two, also twice and five times them.
function powers(low, high) {
  const within = (digits) => {
    const found = [];
    for (let at = Math.floor(Math.log10(low)); at <= Math.log10(high); at += 1) {
      // Parsed from text, since a product of powers would have sixteen digits.
      found.push(...digits.map((digit) => Number(`${digit}e${at}`)));
    }
    return found.filter((value) => value >= low && value <= high);
  };
  const tens = within([1]);
  if (tens.length < 2) return within([1, 2, 5]);
  const every = Math.ceil(tens.length / 5);
  return tens.filter((_, index) => index % every === 0);
}

function showTick(value, percent) {
  if (percent) return `${Number((100 * value).toPrecision(6))} %`;
  if (value && Math.abs(value) < 0.001) return value.toExponential();
  return Number.isInteger(value) ? whole(value) : String(value);
}

// All charts of the page, also those in folded parts.
const charts = [];

class Chart {
  constructor(title, percent, series, level) {
    Object.assign(this, { title, percent, series });
    this.epochs = [...new Set(series.flatMap(({ epochs }) => epochs))].sort((a, b) => a - b);
    const values = series.flatMap((line) => line.values).filter((value) => value !== null);
    // Not Math.min(...values): thousands of epochs are too many arguments.
    this.low = values.reduce((a, b) => Math.min(a, b));
    this.high = values.reduce((a, b) => Math.max(a, b));
    this.log = this.low > 0 && this.high / this.low > LOGARITHMIC;
    this.counts = values.every(Number.isInteger);
    this.at = this.epochs.length - 1;
    this.readout = html("output", { class: "readout" });
    this.paper = html("div", {
      class: "paper", tabindex: 0, role: "group",
      "aria-label": `${title}: left and right arrows read the values epoch by epoch`,
      onkeydown: (event) => this.walk(event),
      onpointermove: (event) => this.point(event),
      onpointerdown: (event) => this.point(event),
    });
    const legend = series.map((line, index) =>
      html("li", {}, this.sample(line.style ?? index), line.name),
    );
    this.element = html(
      "figure", { class: "chart" },
      heading(level, title, this.log ? html("small", {}, " logarithmic") : null),
      series.length > 1 || series[0].style !== undefined
        ? html("ul", { class: "legend" }, legend)
        : null,
      this.paper,
      this.readout,
    );
    // A folded chart has no width, and is drawn when it is unfolded.
    new ResizeObserver(() => this.draw()).observe(this.paper);
    charts.push(this);
    this.tell();
  }

  sample(style) {
    const line = svg("line", { x1: 0, x2: 30, y1: 5, y2: 5, class: lineClass(style) });
    return svg("svg", { width: 30, height: 10, "aria-hidden": "true" }, line);
  }

  draw(width = this.paper.clientWidth) {
    if (!width || width === this.width) return;
    this.width = width;
    const [first, last] = [this.epochs[0], this.epochs.at(-1)];
    const [inner, tall] = [width - MARGIN.left - MARGIN.right, HEIGHT - MARGIN.top - MARGIN.bottom];
    const scale = this.log ? Math.log10 : Number;
    const [low, high] = this.range().map(scale);
    const along = (epoch) => (last > first ? (epoch - first) / (last - first) : 0.5);
    this.x = (epoch) => MARGIN.left + along(epoch) * inner;
    this.y = (value) => MARGIN.top + (1 - (scale(value) - low) / (high - low)) * tall;
    this.mark = svg("g", { class: "mark" });
    const picture = svg(
      "svg",
      { role: "img", "aria-label": this.describe(), viewBox: `0 0 ${width} ${HEIGHT}` },
      this.axes(width),
      this.series.map((line, index) => this.line(line, line.style ?? index)),
      this.mark,
    );
    this.paper.replaceChildren(picture);
    this.tell();
  }

  range() {
    if (this.log) return [this.low / 1.15, this.high * 1.15];
    const room = (this.high - this.low) * 0.06 || Math.abs(this.high) * 0.1 || 1;
    return [this.low >= 0 ? Math.max(this.low - room, 0) : this.low - room, this.high + room];
  }

  axes(width) {
    const [low, high] = this.range();
    const fits = (value) => !this.counts || Number.isInteger(value);
    const values = this.log ? powers(low, high) : ticks(low, high, 6).filter(fits);
    const [first, last] = [this.epochs[0], this.epochs.at(-1)];
    const epochs = ticks(first, last, width < 500 ? 4 : 8).filter(Number.isInteger);
    const bottom = HEIGHT - MARGIN.bottom;
    const tick = (x, y, anchor, text) =>
      svg("text", { class: "tick", x, y, "text-anchor": anchor }, text);
    return [
      values.map((value) =>
        svg("path", { class: "grid", d: `M${MARGIN.left},${this.y(value)}H${width - MARGIN.right}` }),
      ),
      values.map((value) =>
        tick(MARGIN.left - 6, this.y(value) + 4, "end", showTick(value, this.percent)),
      ),
      epochs.map((epoch) => tick(this.x(epoch), bottom + 16, "middle", whole(epoch))),
      tick((MARGIN.left + width) / 2, HEIGHT - 4, "middle", "epoch"),
    ].flat();
  }

  // A missing value breaks the line; a value without neighbours is a dot.
  line({ epochs, values }, style) {
    let path = "";
    epochs.forEach((epoch, index) => {
      if (values[index] === null) return;
      const begins = index === 0 || values[index - 1] === null;
      path += `${begins ? "M" : "L"}${this.x(epoch).toFixed(1)},${this.y(values[index]).toFixed(1)}`;
      if (begins && (values[index + 1] ?? null) === null) path += "h0.01";
    });
    return svg("path", { class: lineClass(style), d: path });
  }

  describe() {
    const ends = this.series.map(({ name, values }) => {
      const known = values.filter((value) => value !== null);
      return `${name} from ${format(known[0], this.percent)} to ${format(known.at(-1), this.percent)}`;
    });
    return `${this.title}: ${ends.join("; ")}`;
  }

  tell() {
    const epoch = this.epochs[this.at];
    const found = this.series.map((line, index) => ({
      ...line, style: line.style ?? index, value: line.values[line.epochs.indexOf(epoch)] ?? null,
    }));
    const values = found.map(({ name, value }) => `${name} ${format(value, this.percent)}`);
    this.readout.textContent = `epoch ${whole(epoch)}: ${values.join(", ")}`;
    if (!this.mark) return;
    const x = this.x(epoch);
    this.mark.replaceChildren(
      svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom }),
      ...found.filter(({ value }) => value !== null).map(({ value, style }) =>
        svg("circle", { cx: x, cy: this.y(value), r: 3.5, class: lineClass(style) }),
      ),
    );
  }

  point(event) {
    if (!this.x) return;
    const box = this.paper.getBoundingClientRect();
    const x = ((event.clientX - box.left) * this.width) / box.width;
    const distance = (index) => Math.abs(this.x(this.epochs[index]) - x);
    const nearer = (best, _, index) => (distance(index) < distance(best) ? index : best);
    this.at = this.epochs.reduce(nearer, 0);
    this.tell();
  }

  walk(event) {
    const last = this.epochs.length - 1;
    const to = { ArrowLeft: this.at - 1, ArrowRight: this.at + 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.at = Math.min(Math.max(to, 0), last);
    this.readout.ariaLive = "polite";
    this.tell();
  }
}

// Seven colours and four kinds of dashes: twenty-eight lines that can be told apart.
const lineClass = (style) => `line colour-${style % 7} dash-${style % 4}`;

// Functions that fill the folded tables, each of which has many thousand elements for a long run.
const tables = [];

// Builds a table of all numbers, also of those that are not drawn.
function numbers(run) {
  const details = folded("All numbers as a table");
  const build = () => {
    if (details.children.length > 1) return;
    details.append(scrolled(`Numbers of ${run.name}`, tabulate(run)));
  };
  // `toggle` comes too late for a click, but also when the search for a word opens the table.
  details.firstChild.addEventListener("click", build);
  details.addEventListener("toggle", build);
  tables.push(build);
  return details;
}

function tabulate(run) {
  const columns = Object.entries(run.columns);
  const rows = run.epochs.map((epoch, index) =>
    html(
      "tr", {}, html("th", { scope: "row" }, whole(epoch)),
      columns.map(([name, values]) => html("td", {}, format(values[index], /top\d$/.test(name)))),
    ),
  );
  const head = ["epoch", ...Object.keys(run.columns)].map((name) =>
    html("th", { scope: "col" }, name),
  );
  return html(
    "table", { class: "numbers" },
    html("thead", {}, html("tr", {}, head)), html("tbody", {}, rows),
  );
}

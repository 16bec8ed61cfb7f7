// The page, from top to bottom: one run, or several runs compared and then each by itself.

const pair = ([name, value]) => html("div", {}, html("dt", {}, name), html("dd", {}, value));

const pairs = (rows) => html("dl", {}, rows.map(pair));

const list = (name, items) =>
  items.length ? html("ul", { class: name }, items.map((item) => html("li", {}, item))) : null;

const section = (level, title, ...content) => html("section", {}, heading(level, title), ...content);

const nothing = (what) =>
  html("p", {}, `There are no ${what} yet: the first epoch is not finished.`);

function sizes(run) {
  const whose =
    run.command === "train"
      ? "The network that is trained"
      : "The network that darts train makes of the genotype by its default recipe";
  const { parameters, macs, example } = run.size;
  return [
    pairs([["Parameters", whole(parameters)], ["Multiply-adds", `${whole(macs)} for one ${example}`]]),
    html("p", { class: "rule" }, `${whose}. ${page.rule}`),
  ];
}

function cells(run, level) {
  if (run.snapshots.length) return explorer(run, level + 1);
  const names = Object.keys(run.cells);
  if (!names.length) return [nothing("cells")];
  return names.map((name) =>
    html("div", {}, heading(level + 1, `${name} cell`), cellFigure(run.cells[name], `${name} cell`)),
  );
}

function curves(run, level) {
  if (!run.epochs.length) return [nothing("numbers")];
  return [html("div", { class: "charts" }, curvesOfRun(run, level + 1)), numbers(run)];
}

function settings(run) {
  const rows = Object.entries(run.settings).map(([key, value]) =>
    html("tr", {}, html("th", { scope: "row" }, html("code", {}, key)), html("td", {}, value)),
  );
  const table = html("table", { class: "settings" }, html("tbody", {}, rows));
  return folded("All settings", scrolled(`Settings of ${run.name}`, table));
}

function links(run) {
  if (!run.links.length) return html("p", {}, "None of the run's files are there.");
  const items = run.links.map(([name, href]) => html("li", {}, html("a", { href }, name)));
  return html("ul", { class: "links" }, items);
}

// Builds all sections of one run, with headings of level `level`.
function tellRun(run, level) {
  return [
    section(
      level, "Summary",
      pairs(run.summary), list("warnings", run.warnings), list("notes", run.notes),
    ),
    section(level, "Cells", ...cells(run, level)),
    section(level, "Curves", ...curves(run, level)),
    section(level, "Size", ...(run.size ? sizes(run) : [html("p", {}, "Not known.")])),
    section(level, "Settings", settings(run)),
    section(level, "Files", links(run)),
  ];
}

// Builds the table of runs. Runs are columns, since texts are long and runs are few.
function compareRuns(runs) {
  const told = runs.map((run) => Object.fromEntries(run.summary));
  const added = runs.map((run) => ({
    Parameters: run.size && whole(run.size.parameters),
    "Multiply-adds": run.size && `${whole(run.size.macs)} for one ${run.size.example}`,
    Warnings: list("warnings", run.warnings) ?? "none",
  }));
  const row = (name, values) =>
    html(
      "tr", {},
      html("th", { scope: "row" }, name), values.map((value) => html("td", {}, value ?? "–")),
    );
  const body = [told, added].flatMap((runs) =>
    [...new Set(runs.flatMap(Object.keys))].map((name) => row(name, runs.map((run) => run[name]))),
  );
  const differing = page.differences.map((key) =>
    row(html("code", {}, key), runs.map((run) => run.settings[key])),
  );
  const divider = html(
    "th", { class: "divider", colspan: runs.length + 1, scope: "rowgroup" }, "Settings that differ",
  );
  const head = html("tr", {}, html("td"), runs.map((run) => html("th", { scope: "col" }, run.name)));
  return scrolled(
    "Table of runs",
    html(
      "table", { class: "runs" },
      html("thead", {}, head), html("tbody", {}, body),
      differing.length ? html("tbody", {}, html("tr", {}, divider), differing) : null,
    ),
  );
}

function compareCells(runs) {
  const figure = (run, name) =>
    html(
      "figure", {},
      html("figcaption", {}, run.name),
      cellFigure(run.cells[name], `${name} cell of ${run.name}`, SMALL),
    );
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.cells)))];
  return names.flatMap((name) => [
    heading(3, `${name} cells`),
    html(
      "div", { class: "side-by-side" },
      runs.filter((run) => name in run.cells).map((run) => figure(run, name)),
    ),
  ]);
}

function comparison(runs) {
  const each = runs.map((run) =>
    html("details", { class: "run" }, html("summary", {}, heading(3, run.name)), tellRun(run, 4)),
  );
  return [
    section(2, "Runs", compareRuns(runs)),
    section(
      2, "Curves",
      html("div", { class: "charts" }, curvesOfRuns(runs, 3)),
      html("p", { class: "rule" }, "The numbers are in the tables of the runs below."),
    ),
    section(2, "Newest cells", ...compareCells(runs)),
    ...(runs.some((run) => run.size)
      ? [section(2, "How multiply-adds are counted", html("p", {}, page.rule))]
      : []),
    section(2, "Each run", each),
  ];
}

const page = JSON.parse(document.getElementById("data").textContent);
document.getElementById("page").replaceChildren(
  html(
    "header", {},
    heading(1, page.title),
    html("p", { class: "made" }, `A page of darts ${page.darts}. It holds all that it shows.`),
  ),
  ...(page.runs.length > 1 ? comparison(page.runs) : tellRun(page.runs[0], 2)),
);

// Everything is unfolded for printing. Half of the paper's width, in CSS pixels.
const HALF_PAPER = 340;
let unfolded = [];

addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const details of unfolded) details.open = true;
  for (const chart of charts) chart.draw(HALF_PAPER);
  for (const build of tables) build();
});

addEventListener("afterprint", () => {
  for (const details of unfolded) details.open = false;
  for (const chart of charts) chart.draw();
});

import { LineChart } from "../charts/line-chart.js";
import { card, element, problem, put } from "../element.js";
import { exact, integer } from "../format.js";

/** A session's inputs and outputs by step: two charts with one x axis, and the last values as a table. */

const LAST_ROWS = 8;
const MOST_LINES = 12; // of a long vector, only the first are drawn
const MOST_COLUMNS = 10;
const LEAST_STEPS = 24; // shortest length of the x axis

export class HistoryCard {
  constructor(model, { title = "Inputs and outputs", end = [] } = {}) {
    this.model = model;
    const formatX = (at) => this.feed.history.axis.text(at);
    this.inputs = new LineChart({ label: "Inputs", height: 140, formatX, joined: 1 });
    this.outputs = new LineChart({ label: "Outputs", height: 170, formatX, joined: 1 });
    this.message = element("div", {});
    this.charts = element("div", { class: "stack" }, this.inputs.element, this.outputs.element, partly(model));
    this.table = element("div", { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Last values" });
    this.details = element(
      "details",
      { ontoggle: () => this.#rows() },
      element("summary", {}, "Last values"),
      this.table,
    );
    this.element = card(title, { end }, this.message, this.charts, this.details);
  }

  close() {
    this.inputs.close();
    this.outputs.close();
  }

  /** ahead: { from, inputs: [[...]], outputs: [[...]] } to draw dashed after the last step, or null. */
  update(feed, { ahead: given = null, differs = null, x, inputsY, outputsY } = {}) {
    this.feed = feed;
    const rows = feed.history.list();
    const { now } = feed;
    const ahead = from(given, now);
    const nothing = !rows.length && !ahead;
    this.charts.hidden = nothing;
    this.details.hidden = nothing;
    put(this.message, nothing ? this.#nothing(feed) : feed.stepsProblem ? problem(feed.stepsProblem) : []);
    if (nothing) return;
    const { model } = this;
    const domain = x ?? xDomain(rows, now, ahead);
    const lines = (names, values, future) =>
      names.slice(0, MOST_LINES).map((name, i) => ({
        name,
        points: rows.filter((row) => values(row)).map((row) => [row.step, values(row)[i]]),
        ahead: (future ?? []).map((row, j) => [ahead.from + j, row[i]]),
      }));
    const rest = { x: domain, now: ahead ? now - 1 : undefined, differs };
    this.inputs.update({ ...rest, y: inputsY, series: lines(model.inputNames(), (row) => row.input, ahead?.inputs) });
    this.outputs.update({
      ...rest,
      y: outputsY,
      series: lines(model.outputNames(), (row) => row.output, ahead?.outputs),
    });
    this.#rows();
  }

  /** Shows a problem above the charts, which stay. */
  warn(error) {
    put(this.message, problem(error));
  }

  #nothing(feed) {
    if (feed.stepsProblem) return problem(feed.stepsProblem);
    if (!feed.told) return element("div", { class: "chart-message" }, "Loading");
    return element(
      "div",
      { class: "chart-message" },
      feed.now
        ? "The log is empty: its inputs went into the checkpoint. The next steps appear here as they come."
        : "No step yet. Steps appear here as they come.",
    );
  }

  #rows() {
    if (!this.details.open || !this.feed) return;
    const rows = this.feed.history.list().slice(-LAST_ROWS).reverse();
    const names = [
      ...this.model.inputNames().slice(0, MOST_COLUMNS),
      ...this.model.outputNames().slice(0, MOST_COLUMNS),
    ];
    const head = element(
      "tr",
      {},
      element("th", { scope: "col" }, "Step"),
      names.map((name) => element("th", { scope: "col" }, name)),
    );
    const body = rows.map(({ step, raw }) => {
      const values = [...raw.input.slice(0, MOST_COLUMNS), ...raw.output.slice(0, MOST_COLUMNS)];
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, this.feed.history.axis.text(step)),
        values.map((value) => element("td", {}, exact(value))),
      );
    });
    put(this.table, element("table", { class: "values" }, element("thead", {}, head), element("tbody", {}, body)));
  }
}

/** Says so if only a part is drawn. */
function partly(model) {
  const of = [
    [model.features, "inputs"],
    [model.outputs, "outputs"],
  ].filter(([count]) => count > MOST_LINES);
  if (!of.length) return null;
  const texts = of.map(([count, what]) => `the first ${MOST_LINES} of ${integer(count)} ${what}`);
  return element("p", { class: "muted small" }, `Shown: ${texts.join(" and ")}.`);
}

/** Returns the part of `ahead` that the session has not reached yet: { from, inputs, outputs }, or null. */
function from(ahead, now) {
  const passed = ahead ? Math.max(0, now - ahead.from) : 0;
  if (!ahead || passed >= ahead.outputs.length) return null;
  return { from: ahead.from + passed, inputs: ahead.inputs.slice(passed), outputs: ahead.outputs.slice(passed) };
}

/** Returns the x axis: from the first row to the last step, or to the end of `ahead`. */
export function xDomain(rows, now, ahead = null) {
  const last = ahead ? ahead.from + ahead.outputs.length - 1 : now - 1;
  const first = rows.length ? rows[0].step : Math.max(0, now - 1);
  return [Math.min(first, Math.max(0, last - LEAST_STEPS)), Math.max(last, first + 1)];
}

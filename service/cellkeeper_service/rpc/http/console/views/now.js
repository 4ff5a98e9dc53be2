import { LineChart } from "../charts/line-chart.js";
import { card, element, empty, page, problem, put } from "../element.js";
import { counted, integer, latency, number } from "../format.js";

/** What this server process has done in the last minutes, by its own metrics. */

const EVERY_MS = 5000;
const SHORTEST_SECONDS = 60; // length of the x axis in the first minute
const PHASES = ["queue", "load", "compute", "commit", "total"];

export class NowView {
  title = "Now";

  constructor(context) {
    this.context = context;
    this.body = element("div", {}, element("div", { class: "chart-message" }, "Loading"));
    this.state = element("div", {});
    const below = element(
      "p",
      { class: "muted small" },
      "The last minutes of the server process that answers this page. Other replicas have their own; Prometheus has them all.",
    );
    this.element = page("Now", { below }, this.state, this.body);
    this.visible = () => !document.hidden && this.#load();
    document.addEventListener("visibilitychange", this.visible);
    this.timer = setInterval(this.visible, EVERY_MS);
    this.#load();
  }

  close() {
    clearInterval(this.timer);
    document.removeEventListener("visibilitychange", this.visible);
    for (const chart of Object.values(this.charts ?? {})) chart.close();
  }

  restored() {
    this.#load();
  }

  async #load() {
    try {
      const { samples, sample_seconds: seconds } = await this.context.api.get("/v1/now");
      put(this.state);
      if (samples.length) this.#show(samples);
      else
        put(
          this.body,
          element(
            "div",
            { class: "card" },
            empty(
              "Nothing measured yet.",
              `The server takes a sample every ${number(seconds)} seconds; the first comes in a moment.`,
            ),
          ),
        );
    } catch (error) {
      put(this.state, problem(error));
    }
  }

  #show(samples) {
    if (!this.charts) this.#lay();
    const now = Date.now() / 1000;
    const last = samples.at(-1);
    const xs = samples.map((sample) => now - sample.age_seconds);
    const line = (name, value) => ({ name, points: samples.map((sample, i) => [xs[i], toNumber(value(sample))]) });
    const x = [Math.min(xs[0], xs.at(-1) - SHORTEST_SECONDS), xs.at(-1)];
    const draw = (name, ...series) => this.charts[name].update({ series, x });
    const total = (quantile) => (sample) => toMs(sample.latency_seconds.total?.[quantile]);
    draw(
      "steps",
      line("steps/s", (sample) => sample.steps_per_second),
      line("chunks/s", (sample) => sample.chunks_per_second),
    );
    draw("latency", line("p50", total("p50")), line("p99", total("p99")));
    draw(
      "batch",
      line("mean", (sample) => sample.batch_size_mean),
    );
    draw(
      "queue",
      line("queued", (sample) => sample.queue_depth),
    );
    const stored = (call) => (sample) => toMs(sample.store[call]?.seconds?.p99);
    draw("store", line("load p99", stored("load")), line("commit p99", stored("commit")));
    this.#figure("store", latency(stored("commit")(last)), "p99 of a commit");
    const reasons = [...new Set(samples.flatMap((sample) => Object.keys(sample.rejections_per_second)))].sort();
    draw("rejections", ...reasons.map((reason) => line(reason, (sample) => sample.rejections_per_second[reason] ?? 0)));
    this.noRejections.hidden = reasons.length > 0;
    this.#figure("steps", number(last.steps_per_second, 3), "steps/s");
    this.#figure("latency", latency(toMs(last.latency_seconds.total?.p99)), "p99");
    this.#figure("batch", last.batch_size_mean === null ? "–" : number(last.batch_size_mean, 3), "sessions per batch");
    this.#figure("queue", integer(last.queue_depth), `queued, ${counted(sum(last.hot_sessions), "hot session")}`);
    this.#figure("rejections", number(sum(last.rejections_per_second), 3), "per second");
    put(this.phases, phaseTable(last));
    put(this.store, storeTable(last));
  }

  #figure(name, value, unit) {
    put(this.figures[name], value, element("small", {}, ` ${unit}`));
  }

  #lay() {
    const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");
    const chart = (label) =>
      new LineChart({
        label,
        height: 110,
        floor: 0,
        clock: true,
        formatX: clock,
        formatY: (value) => number(value, 3),
      });
    this.charts = {
      steps: chart("Steps per second"),
      latency: chart("Latency in ms"),
      batch: chart("Sessions in a batch"),
      queue: chart("Queue"),
      store: chart("Store calls in ms"),
      rejections: chart("Rejections per second"),
    };
    this.figures = Object.fromEntries(
      Object.keys(this.charts).map((name) => [name, element("p", { class: "headline-figure" })]),
    );
    this.noRejections = element("p", { class: "muted small" }, "None in these minutes.");
    this.phases = element("div", { class: "table-scroll" });
    this.store = element("div", { class: "table-scroll" });
    const tile = (title, name, ...more) => card(title, {}, this.figures[name], this.charts[name].element, more);
    const tiles = element(
      "div",
      { class: "tiles" },
      tile("Throughput", "steps"),
      tile("Latency of a chunk", "latency"),
      tile("Batches", "batch"),
      tile("Queue", "queue"),
      tile("Store", "store"),
      tile("Rejections", "rejections", this.noRejections),
    );
    const tables = [card("Where a chunk's time goes", {}, this.phases), card("Calls to the store", {}, this.store)];
    put(this.body, element("div", { class: "stack" }, tiles, element("div", { class: "halves" }, tables)));
  }
}

function toNumber(value) {
  return value === null || value === undefined ? NaN : Number(value);
}

function toMs(seconds) {
  return seconds === null || seconds === undefined ? null : seconds * 1000;
}

function sum(rates) {
  return Object.values(rates).reduce((all, rate) => all + Number(rate), 0);
}

function phaseTable({ latency_seconds: phases }) {
  const rows = PHASES.filter((phase) => phases[phase]).map((phase) => [
    phase,
    ...["p50", "p90", "p99"].map((quantile) => latency(toMs(phases[phase][quantile]))),
  ]);
  return table(["Phase", "p50", "p90", "p99"], rows, "No chunk in the last sample.");
}

function storeTable({ store, commits_per_second: commits }) {
  const rows = Object.entries(store).map(([call, { calls_per_second: calls, errors_per_second: errors, seconds }]) => [
    call,
    number(calls, 3),
    latency(toMs(seconds?.p50)),
    latency(toMs(seconds?.p99)),
    number(errors, 3),
  ]);
  const results = Object.entries(commits).map(([result, rate]) => `${result} ${number(rate, 3)}`);
  return [
    table(["Call", "calls/s", "p50", "p99", "errors/s"], rows, "No call to the store in the last sample."),
    results.length ? element("p", { class: "muted small" }, `Commits per second: ${results.join(", ")}`) : null,
  ];
}

function table(names, rows, nothing) {
  if (!rows.length) return element("p", { class: "muted" }, nothing);
  const head = names.map((name, i) => element("th", { scope: "col", class: i && "number" }, name));
  const body = rows.map(([name, ...values]) =>
    element(
      "tr",
      {},
      element("th", { scope: "row" }, name),
      values.map((value) => element("td", { class: "number" }, value)),
    ),
  );
  return element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, body));
}

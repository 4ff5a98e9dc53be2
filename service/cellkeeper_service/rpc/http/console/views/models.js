import { card, element, empty, facts, page, problem, put } from "../element.js";
import { integer, number, shape, short } from "../format.js";
import { modelHash, sessionsHash } from "../route.js";
import { versionsOf } from "../model.js";
import { SessionSearch } from "../session-search.js";
import { CarryOver } from "./carry-over.js";

/** The served models: inputs, outputs and states, numerics, and carry-over to a new version. */

const COUNT_PAGE = 1000;
const MOST_COUNTED = 200_000; // counting reads the list of sessions; beyond this the page says "more than"

export class ModelsView {
  #calls = new AbortController();

  constructor(context, { model }) {
    this.context = context;
    this.model = model;
    this.title = model ?? "Models";
    this.body = element(
      "div",
      { class: "stack" },
      card("Models", {}, element("div", { class: "chart-message" }, "Loading")),
    );
    const crumbs = model ? [element("a", { href: "#/models" }, "Models")] : [];
    this.element = page(this.title, { crumbs }, this.body);
    this.#load();
  }

  close() {
    this.#calls.abort();
  }

  restored() {
    this.#load();
  }

  async #load() {
    try {
      const models = await this.context.catalog.list({ fresh: true });
      const names = [...new Set(models.map(({ name }) => name))]
        .sort()
        .filter((name) => !this.model || name === this.model);
      if (names.length)
        put(
          this.body,
          names.map((name) => this.#card(name, versionsOf(models, name))),
        );
      else if (this.model)
        put(
          this.body,
          element(
            "div",
            { class: "card" },
            empty(
              `The model ${this.model} is not served.`,
              "See which models are served, or start the server with its bundle.",
            ),
          ),
        );
      else
        put(
          this.body,
          element(
            "div",
            { class: "card" },
            empty(
              "No model is served.",
              "Start the server with the folder of a bundle: cellkeeper-server serve BUNDLE",
            ),
          ),
        );
    } catch (error) {
      put(this.body, problem(error));
    }
  }

  #card(name, versions) {
    const [current] = versions;
    const link = element("a", { class: "button", href: sessionsHash(name) }, "Sessions");
    const counting = new VersionCounts(this.context.api, name, versions, this.#calls.signal);
    const carry = new CarryOver(this.context, name, versions, () => counting.count());
    const heading = element("a", { href: modelHash(name) }, name);
    const { info } = current;
    const shown = card(
      name,
      { end: [counting.button, link] },
      versionTable(versions, counting),
      carry.element,
      element(
        "div",
        { class: "halves" },
        element(
          "div",
          { class: "stack" },
          element("h3", {}, "Tensors of the version that takes new sessions"),
          tensors(current),
        ),
        element(
          "div",
          { class: "stack" },
          element("h3", {}, "Numerics and limits"),
          properties(info),
        ),
      ),
    );
    shown.querySelector("h2").replaceChildren(heading);
    return shown;
  }
}

function versionTable(versions, counting) {
  const head = ["Version", "", "Engine", "Device", "Exact", "Sessions"].map((text) =>
    element(
      "th",
      { scope: "col", class: text === "Sessions" && "number" },
      text || element("span", { class: "visually-hidden" }, "Role"),
    ),
  );
  const rows = versions.map(({ info, fingerprint }, i) =>
    element(
      "tr",
      {},
      element("th", { scope: "row", class: "mono", title: fingerprint }, short(fingerprint)),
      element("td", {}, element("span", { class: `badge ${i ? "" : "good"}` }, i ? "replaced" : "takes new sessions")),
      element("td", {}, info.engine),
      element("td", {}, info.device),
      element("td", {}, info.exact ? "bit for bit" : `within ${number(info.tolerance, 2)}`),
      element("td", { class: "number" }, counting.cell(fingerprint)),
    ),
  );
  const table = element(
    "table",
    {},
    element("thead", {}, element("tr", {}, head)),
    element("tbody", {}, rows, counting.others),
  );
  return element("div", { class: "table-scroll" }, table);
}

function tensors({ info, tokens }) {
  const row = (role, { name, dtype, shape: dimensions }, note = "") =>
    element(
      "tr",
      {},
      element("td", { class: "muted" }, role),
      element("th", { scope: "row", class: "mono" }, name),
      element("td", {}, dtype.toLowerCase()),
      element("td", {}, shape(dimensions)),
      element("td", { class: "muted" }, note),
    );
  const head = ["Role", "Name", "Type", "Shape", "Note"].map((text) => element("th", { scope: "col" }, text));
  const names = (info.feature_names ?? []).join(", ");
  const note = tokens ? `ids below ${integer(info.vocabulary)}` : names;
  const rows = [
    ...(info.inputs ?? []).map((spec) => row("input", spec, spec.vocabulary ? `below ${integer(spec.vocabulary)}` : "")),
    ...(info.input ? [row("input", { ...info.input, name: info.input.name || "inputs" }, note)] : []),
    ...info.outputs.map((spec) => row("output", spec)),
    ...info.states.map((spec) => row("state", spec)),
  ];
  const table = element("table", {}, element("thead", {}, element("tr", {}, head)), element("tbody", {}, rows));
  return element(
    "div",
    { class: "table-scroll", tabindex: 0, role: "region", "aria-label": `Tensors of ${info.name}` },
    table,
  );
}

function properties(info) {
  const sources = info.feedback?.sources;
  const feedback = !info.feedback
    ? "none declared: no forecasts"
    : sources?.length
      ? sources
          .map((source, i) => `input ${i}: ${source < 0 ? "given by the caller" : `prediction[${source}]`}`)
          .join(", ")
      : "the most likely token";
  return facts([
    ["Numerics", element("span", { class: "mono small wrap-anywhere" }, info.numerics)],
    ["Missing values", info.missing_values ? "NaN is accepted, by the model's policy" : "refused"],
    ["Feedback", feedback],
    ["Chunk", `at most ${integer(info.max_chunk_steps)} steps`],
    ["Frame", `at most ${integer(info.max_frame_items)} sessions`],
    ["Log", `at most ${integer(info.max_log_steps)} steps`],
  ]);
}

/** How many sessions each version has. Counted on request only, because that reads the whole list. */
class VersionCounts {
  #cells = new Map();

  constructor(api, model, versions, signal) {
    Object.assign(this, { api, model, signal });
    for (const { fingerprint } of versions) this.#cells.set(fingerprint, element("span", { class: "muted" }, "–"));
    this.button = element("button", { class: "button", type: "button", onclick: () => this.count() }, "Count sessions");
    this.others = element(
      "tr",
      { hidden: true },
      element("td", { colspan: 5 }, "of versions that are not served"),
      element("td", { class: "number" }),
    );
  }

  cell(fingerprint) {
    return this.#cells.get(fingerprint);
  }

  async count() {
    this.button.disabled = true;
    const counts = new Map();
    let all = 0;
    const search = new SessionSearch(this.api, [this.model], "", this.signal);
    try {
      do {
        const sessions = await search.page(COUNT_PAGE);
        for (const { fingerprint } of sessions) counts.set(fingerprint, (counts.get(fingerprint) ?? 0) + 1);
        all += sessions.length;
        this.#show(counts, !search.ended);
      } while (!search.ended && all < MOST_COUNTED);
      this.button.textContent = "Count again";
    } catch (error) {
      if (!this.signal.aborted) this.button.after(problem(error));
    } finally {
      this.button.disabled = false;
    }
  }

  #show(counts, more) {
    const text = (count) => `${more ? "more than " : ""}${integer(count)}`;
    for (const [fingerprint, cell] of this.#cells) {
      cell.textContent = text(counts.get(fingerprint) ?? 0);
      cell.className = "";
    }
    const others = [...counts]
      .filter(([fingerprint]) => !this.#cells.has(fingerprint))
      .reduce((sum, [, count]) => sum + count, 0);
    this.others.hidden = !others;
    this.others.lastChild.textContent = text(others);
  }
}

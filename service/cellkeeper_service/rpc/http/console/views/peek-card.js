import { card, element, problem, put } from "../element.js";
import { number } from "../format.js";
import { flat } from "../tensor.js";
import { InputFields } from "./input-fields.js";

const MOST_ROWS = 12;

/** A peek: what the model would return for typed values, without changing the session. */
export class PeekCard {
  #rows = null;

  /** changed: called when the result to draw has changed. */
  constructor(context, feed, changed) {
    Object.assign(this, { context, feed, changed });
    this.fields = new InputFields(feed.model);
    this.result = element("div", { role: "status" });
    this.note = element("p", { class: "muted small" });
    const form = element(
      "form",
      { class: "stack", onsubmit: (event) => this.#peek(event) },
      this.fields.element,
      element(
        "div",
        { class: "row" },
        element("button", { class: "button", type: "submit" }, "Peek"),
        element("span", { class: "muted small" }, "changes nothing"),
      ),
    );
    this.element = card("What if the next input were", {}, form, this.result, this.note);
    this.#suggest();
  }

  /** Returns the peeked time step to draw, or null. */
  rows() {
    return this.#rows;
  }

  /** Called when the session has advanced: keeps showing the peek, and says that it is outdated. */
  moved() {
    this.#suggest();
    const passed = this.#rows !== null && this.#rows.from < this.feed.now;
    put(this.note, passed && "The session has moved on since.");
  }

  #suggest() {
    const last = this.feed.history.last();
    if (last) this.fields.suggest(last.raw.input);
  }

  async #peek(event) {
    event.preventDefault();
    const { model, path } = this.feed;
    try {
      const values = this.fields.values();
      const { outputs, position } = await this.context.api.post(`${path}/peek`, {
        inputs: model.chunk([values]),
        outputs: [model.output],
      });
      const output = flat(outputs[model.output][0]);
      this.#rows = { from: this.feed.history.axis.at(position.step) - 1, inputs: [values], outputs: [output] };
      this.#show(output);
    } catch (error) {
      this.#rows = null;
      put(this.result, problem(error));
    }
    this.changed();
  }

  #show(output) {
    const before = this.feed.history.last()?.output;
    const { model } = this.feed;
    const names = model.outputNames();
    const order = [...output.keys()];
    if (model.tokens) order.sort((a, b) => output[b] - output[a]); // the likeliest tokens first
    const rows = order
      .slice(0, MOST_ROWS)
      .map((i) =>
        element(
          "tr",
          {},
          element("th", { scope: "row" }, names[i]),
          element("td", { class: "number" }, number(output[i], 6)),
          element("td", { class: "number muted" }, before ? signed(output[i] - before[i]) : ""),
        ),
      );
    const part =
      output.length > MOST_ROWS ? `, the ${model.tokens ? "largest" : "first"} ${MOST_ROWS} of ${output.length}` : "";
    const head = ["", "would be", "change"].map((text) =>
      element(
        "th",
        { scope: "col", class: text && "number" },
        text || element("span", { class: "visually-hidden" }, "Output"),
      ),
    );
    put(
      this.result,
      element(
        "table",
        { class: "values" },
        element("caption", {}, `At step ${this.feed.history.axis.text(this.#rows.from)}${part}`),
        element("thead", {}, element("tr", {}, head)),
        element("tbody", {}, rows),
      ),
    );
  }
}

function signed(value) {
  return value > 0 ? `+${number(value, 4)}` : number(value, 4);
}

import { card, element, problem, put } from "../element.js";
import { integer, readable } from "../format.js";
import { InputFields } from "./input-fields.js";

/** Steps the session with typed values. The step carries a position, so it takes effect once, on what is shown. */
export class StepForm {
  constructor(context, feed) {
    Object.assign(this, { context, feed });
    const most = Number(feed.model.info.max_chunk_steps);
    this.fields = new InputFields(feed.model);
    this.times = element("input", { class: "narrow", type: "number", min: 1, max: most, value: 1, id: "step-times" });
    this.button = element("button", { class: "button primary", type: "submit" }, "Step it");
    this.result = element("div", { role: "status" });
    const form = element(
      "form",
      { class: "stack", onsubmit: (event) => this.#step(event) },
      this.fields.element,
      element("div", { class: "row" }, this.button, element("label", { for: "step-times" }, "times"), this.times),
      this.result,
    );
    this.element = card(`Step ${readable(feed.session)}`, {}, form);
    this.moved();
  }

  /** Called when the session has advanced: suggests its last input, unless the user has typed. */
  moved() {
    const last = this.feed.history.last();
    if (last) this.fields.suggest(last.raw.input);
  }

  async #step(event) {
    event.preventDefault();
    const { model, path, position } = this.feed;
    this.button.disabled = true;
    try {
      const row = this.fields.values();
      const inputs = model.chunk(Array.from({ length: Number(this.times.value) }, () => row));
      const answer = await this.context.api.post(`${path}/step`, { inputs, position });
      put(this.result, element("span", { class: "muted" }, `It is at step ${integer(answer.position.step)}.`));
    } catch (error) {
      put(this.result, problem(error));
    } finally {
      this.button.disabled = false;
    }
  }
}

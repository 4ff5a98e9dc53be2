import { element, put } from "../element.js";
import { flat } from "../tensor.js";

/** A forecast from the session's position, drawn ahead of its history and repeated as the session advances. */

const FIRST_STEPS = 24;
const EVERY_MS = 1000; // a session that steps faster gets a new forecast this often

export class ForecastForm {
  #rows = null;
  #asking = false;
  #again = false;
  #timer = 0;
  #askedAt = -EVERY_MS;

  constructor(context, feed, changed) {
    Object.assign(this, { context, feed, changed });
    const most = Math.max(1, Number(feed.model.info.max_chunk_steps) - 1);
    const can = feed.model.canForecast;
    this.on = element("input", {
      type: "checkbox",
      id: "forecast-on",
      disabled: !can,
      onchange: () => this.#toggled(),
    });
    this.steps = element("input", {
      class: "narrow",
      type: "number",
      min: 1,
      max: most,
      value: Math.min(FIRST_STEPS, most),
      disabled: !can,
      "aria-label": "Steps to forecast",
      onchange: () => this.moved(),
    });
    this.note = element("span", { class: "small muted", role: "status" });
    this.element = element(
      "div",
      {
        class: "row",
        title: can
          ? "Each prediction becomes the next input; the session is not changed"
          : "The model declares no feedback: which prediction becomes which input. See docs/guides/forecasts.md",
      },
      this.note,
      this.on,
      element("label", { for: "forecast-on" }, can ? "Forecast ahead" : "No forecast: the model declares no feedback"),
      can && this.steps,
    );
  }

  close() {
    clearTimeout(this.#timer);
  }

  /** Returns what to draw: { from, inputs, outputs }, or null. */
  rows() {
    return this.on.checked ? this.#rows : null;
  }

  /** Called when the session has advanced, or the number of steps changed. */
  moved() {
    if (!this.on.checked) return;
    clearTimeout(this.#timer);
    const wait = Math.max(0, this.#askedAt + EVERY_MS - performance.now());
    this.#timer = setTimeout(() => this.#ask(), wait);
  }

  #toggled() {
    put(this.note);
    if (this.on.checked) this.moved();
    else this.changed();
  }

  async #ask() {
    if (this.#asking) {
      this.#again = true;
      return;
    }
    this.#asking = true;
    this.#askedAt = performance.now();
    try {
      await this.#forecast();
    } catch (error) {
      this.#rows = null;
      put(this.note, element("span", { class: "bad" }, error.message));
    } finally {
      this.#asking = false;
      this.changed();
      if (this.#again) {
        this.#again = false;
        this.moved();
      }
    }
  }

  /** Begins with the input that the last output becomes: n time steps are that one and n - 1 rolled out. */
  async #forecast() {
    const { model, path, history, now } = this.feed;
    const last = history.last();
    if (!last?.output || last.step !== now - 1) {
      this.#rows = null;
      put(this.note, "waiting for the next step: the log does not hold the last output");
      return;
    }
    const steps = Number(this.steps.value);
    if (!this.steps.reportValidity() || !steps) return;
    const supplied = model.supplied();
    const held = last.input;
    const first = model.fedBack(last.output, held);
    const body = { inputs: model.chunk([first]), steps: steps - 1, outputs: [model.output] };
    if (steps === 1) delete body.steps;
    if (supplied.length && steps > 1)
      body.known = Array.from({ length: steps - 1 }, () => supplied.map((i) => held[i]));
    const { outputs } = await this.context.api.post(`${path}/${steps === 1 ? "peek" : "forecast"}`, body);
    const given = outputs[model.output].map((row) => flat(row));
    const inputs = given.map((_, i) => (i ? model.fedBack(given[i - 1], held) : first));
    this.#rows = { from: now, inputs, outputs: given };
    put(
      this.note,
      supplied.length ? `${supplied.map((i) => model.inputNames()[i]).join(", ")} held at the last value` : [],
    );
  }
}

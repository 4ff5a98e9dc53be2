import { HeatStrip } from "../charts/heat-strip.js";
import { card, element, put } from "../element.js";
import { layers } from "../tensor.js";

/** The state: a heat strip for each layer of each tensor, with earlier updates below the newest. */
export class StateCard {
  #strips = new Map();

  constructor(theme) {
    this.theme = theme;
    this.redraw = () => this.#strips.forEach((strip) => strip.draw());
    theme.addEventListener("change", this.redraw);
    const key = element("span", { class: "heat-key", "aria-hidden": "true" });
    const end = [
      element("span", { class: "muted small" }, "below 0"),
      key,
      element("span", { class: "muted small" }, "above 0"),
    ];
    this.list = element("div", { class: "stack" }, element("div", { class: "chart-message" }, "Loading"));
    this.element = card(
      "State",
      { end },
      this.list,
      element(
        "p",
        { class: "muted small" },
        "Each column is a unit. The newest state is at the top; earlier ones, since this page was opened, are below.",
      ),
    );
    this.element.classList.add("last"); // in a one-column layout
  }

  close() {
    this.theme.removeEventListener("change", this.redraw);
  }

  /** Forgets the rows of a generation that ended. */
  clear() {
    this.#strips.forEach((strip) => strip.clear());
  }

  update({ states, position }) {
    if (!states) return;
    const parts = layers(states);
    for (const { name, values } of parts) {
      if (!this.#strips.has(name)) this.#strips.set(name, new HeatStrip(name));
      this.#strips.get(name).update(values, `${position.generation} ${position.step}`);
    }
    put(
      this.list,
      parts.map(({ name }) => this.#strips.get(name).element),
    );
  }
}

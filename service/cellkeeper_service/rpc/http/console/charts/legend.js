import { element } from "../element.js";
import { number } from "../format.js";

/** The names of a chart's lines, with the values under its cursor. Clicking a name shows or hides its line. */
export class Legend {
  #names = "";
  #shown = [];
  #outputs = [];
  #texts = [];

  /** changed: called when a line was shown or hidden. shown: how many lines are shown at first. */
  constructor(changed, { shown = 6, formatY = number } = {}) {
    Object.assign(this, { changed, first: shown, formatY });
    this.at = element("li", { class: "muted small" });
    this.element = element("ul", { class: "legend" });
  }

  /** lines: [{ name, color }]. Keeps which lines are shown if the names have not changed. */
  name(lines) {
    const names = JSON.stringify(lines);
    if (names === this.#names) return;
    this.#names = names;
    this.#shown = lines.map((_, i) => i < this.first);
    this.#outputs = lines.map(() => element("output", {}));
    this.#texts = lines.map(({ name }) => name);
    const items = lines.map(({ name, color }, i) => {
      const toggle = () => {
        this.#shown[i] = !this.#shown[i];
        button.setAttribute("aria-pressed", String(this.#shown[i]));
        this.changed();
      };
      const button = element(
        "button",
        { type: "button", "aria-pressed": String(this.#shown[i]), onclick: toggle, title: "Show or hide this line" },
        element("span", { class: `swatch fill-${color}`, "aria-hidden": "true" }),
        name,
        this.#outputs[i],
      );
      return element("li", {}, button);
    });
    this.element.replaceChildren(...items, this.at);
  }

  shows(i) {
    return this.#shown[i];
  }

  /** values: one for each line, undefined if there is none. at: the cursor's position; "" without a cursor. */
  read(values, at) {
    values.forEach((value, i) => {
      if (this.#outputs[i]) this.#outputs[i].textContent = value === undefined ? "" : this.formatY(value);
    });
    this.at.textContent = at && `at ${at}`;
  }

  /** Returns the values as a sentence. */
  text(at) {
    const parts = this.#texts.flatMap((name, i) => {
      const value = this.#outputs[i].textContent;
      return this.#shown[i] && value ? [`${name} ${value}`] : [];
    });
    return parts.length ? `${at}: ${parts.join(", ")}` : "no values";
  }
}

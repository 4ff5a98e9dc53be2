import { element } from "../element.js";
import { exact } from "../format.js";

/** Fields for one time step's input: one for each feature, or a single text area if there are many. */

const MOST_FIELDS = 16;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const NAMED = { nan: NaN, infinity: Infinity, "+infinity": Infinity, "-infinity": -Infinity };

export class InputFields {
  #touched = false;

  constructor(model) {
    this.model = model;
    this.names = model.inputNames();
    this.single = this.names.length > MOST_FIELDS;
    const touched = () => (this.#touched = true);
    const id = `inputs-${crypto.randomUUID()}`;
    const attributes = { autocomplete: "off", spellcheck: "false", oninput: touched };
    this.inputs = this.single
      ? [element("textarea", { ...attributes, id, rows: 5 })]
      : this.names.map((_, i) => element("input", { ...attributes, id: `${id}-${i}`, inputmode: "text" }));
    const labels = this.single ? [`${this.names.length} values, separated by commas or spaces`] : this.names;
    this.element = element(
      "div",
      { class: this.single ? "field" : "fields" },
      this.inputs.map((input, i) =>
        element("div", { class: "field" }, element("label", { for: input.id }, labels[i]), input),
      ),
    );
  }

  /**
   * Fills in values (strings or numbers from the API), unless the user has typed or is in a field: a selection there
   * would be lost, and what is typed next would follow the suggestion.
   */
  suggest(values) {
    if (this.#touched || this.inputs.includes(document.activeElement) || values.length !== this.names.length) return;
    const texts = values.map(exact);
    if (this.single) this.inputs[0].value = texts.join(", ");
    else this.inputs.forEach((input, i) => (input.value = texts[i]));
  }

  /** Returns the values as numbers. Throws an error that names the feature, what came and what is expected. */
  values() {
    const texts = this.single
      ? this.inputs[0].value.split(/[\s,;]+/).filter(Boolean)
      : this.inputs.map(({ value }) => value.trim());
    for (const input of this.inputs) input.removeAttribute("aria-invalid");
    if (texts.length !== this.names.length) {
      this.inputs[0].setAttribute("aria-invalid", "true");
      throw new Error(`Got ${texts.length} values, expected ${this.names.length}.`);
    }
    return texts.map((text, i) => this.#value(text, i));
  }

  #value(text, i) {
    const named = NAMED[text.toLowerCase()];
    const value = named === undefined && NUMBER.test(text) ? Number(text) : named;
    const whole =
      !this.model.tokens || (Number.isInteger(value) && value >= 0 && value < Number(this.model.info.vocabulary));
    if (value !== undefined && whole) return value;
    this.inputs[this.single ? 0 : i].setAttribute("aria-invalid", "true");
    this.inputs[this.single ? 0 : i].focus();
    const expected = this.model.tokens
      ? `a whole number below ${this.model.info.vocabulary}`
      : "a number, NaN, Infinity or -Infinity";
    throw new Error(`${this.names[i]}: got “${text}”, expected ${expected}.`);
  }
}

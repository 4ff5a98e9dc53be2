import { element } from "../element.js";
import { counted, number } from "../format.js";
import { SATURATED, summary } from "../tensor.js";

/**
 * One layer's state: a column for each unit, a row for each of the last updates, with the newest on top and thicker.
 * Blue is below zero, orange above. The scale is symmetric about zero, up to the largest magnitude that is shown.
 */

const ROWS = 28;
const NEWEST_ROWS = 8; // thickness of the newest row, in rows
const FEW = 8; // strips of fewer units need less room
const MOST_COLUMNS = 512; // beyond it, a column is the mean of neighbouring units

export class HeatStrip {
  #past = []; // newest first
  #key = null;

  constructor(name) {
    this.name = name;
    this.canvas = element("canvas", { role: "img", "aria-label": name, height: ROWS + NEWEST_ROWS, width: 1 });
    this.numbers = element("div", { class: "numbers" });
    this.units = element("span", { class: "muted small" });
    this.under = element("span", { class: "muted small mono" });
    this.canvas.addEventListener("pointermove", (event) => this.#point(event));
    this.canvas.addEventListener("pointerleave", () => (this.under.textContent = ""));
    const head = element(
      "div",
      { class: "row spread" },
      element("h3", { class: "mono" }, name),
      this.under,
      this.units,
    );
    this.element = element("div", { class: "strip" }, head, this.canvas, this.numbers);
  }

  /** values: one for each unit. key: of the update; the same key replaces the newest row. */
  update(values, key) {
    if (this.#past.length && this.#past[0].length !== values.length) this.#past = [];
    if (key === this.#key) this.#past.shift();
    this.#key = key;
    this.#past.unshift(values);
    this.#past.length = Math.min(this.#past.length, ROWS + 1);
    this.units.textContent = counted(values.length, "unit");
    this.element.classList.toggle("few", values.length < FEW);
    this.#describe(values);
    this.draw();
  }

  /** Forgets all rows, because the session has another generation. */
  clear() {
    this.#past = [];
    this.#key = null;
  }

  /** Draws with the theme's current colours. */
  draw() {
    if (!this.#past.length) return;
    const rows = this.#past.map(columns);
    const width = rows[0].length;
    const reach = Math.max(...rows.flat().filter(Number.isFinite).map(Math.abs), 1e-12);
    const colors = scale();
    if (this.canvas.width !== width) this.canvas.width = width;
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(width, ROWS + NEWEST_ROWS);
    for (let y = 0; y < ROWS + NEWEST_ROWS; y += 1) {
      const row = rows[Math.max(0, y - NEWEST_ROWS + 1)];
      if (!row || y === NEWEST_ROWS) continue; // a gap below the newest row
      row.forEach((value, x) => image.data.set(colors(value / reach), (y * width + x) * 4));
    }
    context.putImageData(image, 0, 0);
  }

  #describe(values) {
    const { min, max, norm, saturated } = summary(values);
    const share = saturated === null ? "not bounded by ±1" : `${number(saturated * 100, 3)} %`;
    const shown = [
      ["min", number(min)],
      ["max", number(max)],
      ["norm", number(norm)],
      ["saturated", share],
    ];
    this.numbers.replaceChildren(
      ...shown.map(([name, text]) => element("span", { title: TITLES[name] }, `${name} `, element("b", {}, text))),
    );
    const told = shown.map(([name, text]) => `${name} ${text}`).join(", ");
    this.canvas.setAttribute("aria-label", `State ${this.name}, ${values.length} units: ${told}`);
  }

  #point(event) {
    const newest = this.#past[0];
    if (!newest) return;
    const { left, width } = this.canvas.getBoundingClientRect();
    const unit = Math.min(newest.length - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * newest.length)));
    this.under.textContent = `unit ${unit}: ${number(newest[unit], 6)}`;
  }
}

const TITLES = {
  min: "The smallest value",
  max: "The largest value",
  norm: "Euclidean norm of the layer's state",
  saturated: `Share of units whose value is at least ${SATURATED} in magnitude`,
};

function columns(values) {
  if (values.length <= MOST_COLUMNS) return values;
  const each = values.length / MOST_COLUMNS;
  return Array.from({ length: MOST_COLUMNS }, (_, i) => {
    const part = values.slice(Math.floor(i * each), Math.floor((i + 1) * each));
    return part.reduce((sum, value) => sum + value, 0) / part.length;
  });
}

/** Returns a function from -1..1 to [r, g, b, a]; NaN is transparent. */
function scale() {
  const style = getComputedStyle(document.documentElement);
  const [low, zero, high] = ["low", "zero", "high"].map((name) => rgb(style.getPropertyValue(`--heat-${name}`)));
  return (value) => {
    if (Number.isNaN(value)) return [0, 0, 0, 0];
    const end = value < 0 ? low : high;
    const share = Math.min(1, Math.abs(value)) ** 0.8;
    return [...zero.map((channel, i) => Math.round(channel + (end[i] - channel) * share)), 255];
  };
}

function rgb(hex) {
  const digits = hex.trim().slice(1);
  return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
}

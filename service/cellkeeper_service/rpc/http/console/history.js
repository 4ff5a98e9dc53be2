import { flat } from "./tensor.js";

/** The last time steps of one generation of a session: what it took in and what it gave, by step. */
const CAPACITY_STEPS = 720;

export class History {
  constructor() {
    this.generation = null;
    this.rows = new Map(); // step -> { step, input: [numbers], output: [numbers], raw: {input, output} }
  }

  /**
   * Takes rows in. first: the step of the first row. Returns true where something is new. Another generation forgets
   * everything before it.
   */
  add({ position, first, inputs, outputs = {} }, outputName) {
    const other = position.generation !== this.generation;
    if (other) {
      this.generation = position.generation;
      this.rows.clear();
    }
    const given = outputs[outputName] ?? [];
    let fresh = other;
    inputs.forEach((input, i) => {
      const step = Number(first) + i;
      const known = this.rows.get(step);
      if (known && (known.output || given[i] === undefined)) return;
      const output = given[i] === undefined ? null : flat(given[i]);
      this.rows.set(step, {
        step,
        input: flat(input),
        output,
        raw: { input: [input].flat(Infinity), output: [given[i] ?? []].flat(Infinity) },
      });
      fresh = true;
    });
    this.#trim();
    return fresh;
  }

  /** The rows in the order of their steps. */
  list() {
    return [...this.rows.values()].sort((a, b) => a.step - b.step);
  }

  last() {
    return this.list().at(-1) ?? null;
  }

  #trim() {
    if (this.rows.size <= CAPACITY_STEPS) return;
    const steps = [...this.rows.keys()].sort((a, b) => a - b);
    for (const step of steps.slice(0, steps.length - CAPACITY_STEPS)) this.rows.delete(step);
  }
}

/**
 * The first step at which two histories differ, of those that both have: { step, what: "input" | "output" }, or null.
 * Values are compared as they came, so that NaN equals NaN and no digit is lost.
 */
export function firstDifference(one, other) {
  for (const row of one.list()) {
    const twin = other.rows.get(row.step);
    if (!twin) continue;
    if (differ(row.raw.input, twin.raw.input)) return { step: row.step, what: "input" };
    if (differ(row.raw.output, twin.raw.output)) return { step: row.step, what: "output" };
  }
  return null;
}

/** The steps that both histories have, as [first, last], or null. */
export function common(one, other) {
  const steps = [...one.rows.keys()].filter((step) => other.rows.has(step));
  return steps.length ? [Math.min(...steps), Math.max(...steps)] : null;
}

function differ(values, others) {
  return values.length !== others.length || values.some((value, i) => String(value) !== String(others[i]));
}

import { StepAxis } from "./step-axis.js";
import { flat } from "./tensor.js";

const CAPACITY_STEPS = 720;

/**
 * The last time steps of one generation of a session: its inputs and outputs, by step. `axis` converts between steps
 * and the numbers used here.
 */
export class History {
  constructor() {
    this.generation = null;
    this.axis = new StepAxis();
    this.rows = new Map(); // step -> { step, input: [numbers], output: [numbers] or null, raw: { input, output } }
  }

  /** Records the session's position. Another generation clears the history. */
  stand({ generation, step }) {
    if (generation !== this.generation) {
      this.generation = generation;
      this.axis = new StepAxis(step);
      this.rows.clear();
    }
    const now = this.axis.at(step);
    for (const known of this.rows.keys()) {
      if (known < now - CAPACITY_STEPS || known >= now) this.rows.delete(known); // the latter: a store lost its tail
    }
  }

  /** Adds rows. first: the step of the first row. outputs: by name, [T, ...]; only `outputName` is kept. */
  add({ position, first, inputs, outputs = {} }, outputName) {
    this.stand(position);
    const given = outputs[outputName] ?? [];
    inputs.forEach((input, i) => {
      const step = this.axis.at(first) + i;
      const output = given[i] === undefined ? null : flat(given[i]);
      const raw = { input: [input].flat(Infinity), output: [given[i] ?? []].flat(Infinity) };
      this.rows.set(step, { step, input: flat(input), output, raw });
    });
  }

  /** Returns the rows in the order of their steps. */
  list() {
    return [...this.rows.values()].sort((a, b) => a.step - b.step);
  }

  last() {
    return this.list().at(-1) ?? null;
  }
}

/**
 * Returns the first step, of those in both histories, at which they differ: { step, what: "input" | "output" }, or
 * null. Values are compared as they were received, so that NaN equals NaN and no digit is lost.
 */
export function firstDifference(one, other) {
  if (one.axis.origin !== other.axis.origin) return null;
  for (const row of one.list()) {
    const twin = other.rows.get(row.step);
    if (!twin) continue;
    if (differ(row.raw.input, twin.raw.input)) return { step: row.step, what: "input" };
    if (row.output && twin.output && differ(row.raw.output, twin.raw.output)) return { step: row.step, what: "output" };
  }
  return null;
}

/** Returns the first and last step that both histories have, or null. */
export function common(one, other) {
  const alike = one.axis.origin === other.axis.origin;
  const steps = alike ? [...one.rows.keys()].filter((step) => other.rows.has(step)) : [];
  return steps.length ? [Math.min(...steps), Math.max(...steps)] : null;
}

function differ(values, others) {
  return values.length !== others.length || values.some((value, i) => String(value) !== String(others[i]));
}

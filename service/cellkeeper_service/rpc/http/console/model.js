import { jsonNumber, nested, size } from "./tensor.js";

/** A served version of a model: what the API says about it, and what follows from that. */
export class Model {
  constructor(info) {
    Object.assign(this, { info, name: info.name, fingerprint: info.fingerprint });
    this.tokens = Number(info.vocabulary ?? 0) > 0;
    this.parts = info.inputs ?? []; // for a time step with several inputs
    this.inputShape = this.tokens || this.parts.length ? [] : info.input.shape;
    this.features = this.parts.length
      ? this.parts.reduce((sum, { shape }) => sum + size(shape), 0)
      : size(this.inputShape);
    const named = info.outputs.find(({ name }) => name === "prediction") ?? info.outputs[0];
    this.output = named?.name ?? "prediction";
    this.outputs = named ? size(named.shape) : 0;
  }

  /** Returns names for the input's values: the model's feature names, or x[i]. */
  inputNames() {
    if (this.parts.length) return this.parts.flatMap(({ name, shape }) => names(size(shape), name));
    if (this.tokens) return ["token"];
    const given = this.info.feature_names ?? [];
    return given.length === this.features ? given : names(this.features, "x");
  }

  outputNames() {
    return names(this.outputs, this.output);
  }

  /** Returns a chunk for the API from the values of each time step. */
  chunk(rows) {
    const texts = rows.map((values) => values.map(jsonNumber));
    if (!this.parts.length) return texts.map((values) => nested(values, this.inputShape));
    const given = {};
    let first = 0;
    for (const { name, shape } of this.parts) {
      const from = first;
      first += size(shape);
      given[name] = texts.map((values) => nested(values.slice(from, from + size(shape)), shape));
    }
    return given;
  }

  /** Returns the time steps of a chunk from the API, each as nested lists: the inverse of `chunk`. */
  steps(chunk) {
    if (!this.parts.length) return chunk;
    const columns = this.parts.map(({ name }) => chunk[name]);
    return columns[0].map((_, i) => columns.map((column) => column[i]));
  }

  /** Forecasts are drawn for models with one input only. */
  get canForecast() {
    return Boolean(this.info.feedback) && !this.parts.length;
  }

  /** Returns the indices of the features that the caller of a forecast has to supply. */
  supplied() {
    return (this.info.feedback?.sources ?? []).flatMap((source, i) => (source < 0 ? [i] : []));
  }

  /**
   * Returns the input that follows a prediction when the model is rolled out. held: by index, the values of features
   * that the caller supplies.
   */
  fedBack(prediction, held) {
    const sources = this.info.feedback?.sources ?? [];
    if (!sources.length) return [prediction.indexOf(Math.max(...prediction))];
    return sources.map((source, i) => (source < 0 ? held[i] : prediction[source]));
  }
}

function names(count, word) {
  return count === 1 ? [word] : Array.from({ length: count }, (_, i) => `${word}[${i}]`);
}

/** Returns the served versions of one model; the first takes new sessions. */
export function versionsOf(models, name) {
  return models.filter((model) => model.name === name);
}

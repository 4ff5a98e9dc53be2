import { jsonNumber, nested, size } from "./tensor.js";

/** What the API says of a served version of a model, and what follows from it. */
export class Model {
  constructor(info) {
    Object.assign(this, { info, name: info.name, fingerprint: info.fingerprint });
    this.tokens = Number(info.vocabulary ?? 0) > 0;
    this.parts = info.inputs ?? []; // of a time step with several inputs
    this.inputShape = this.tokens || this.parts.length ? [] : info.input.shape;
    this.features = this.parts.length
      ? this.parts.reduce((sum, { shape }) => sum + size(shape), 0)
      : size(this.inputShape);
    const named = info.outputs.find(({ name }) => name === "prediction") ?? info.outputs[0];
    this.output = named?.name ?? "prediction";
    this.outputs = named ? size(named.shape) : 0;
  }

  /** Names of the input's values: the model's feature names, or x[i]. */
  inputNames() {
    if (this.parts.length) return this.parts.flatMap(({ name, shape }) => names(size(shape), name));
    if (this.tokens) return ["token"];
    const given = this.info.feature_names ?? [];
    return given.length === this.features ? given : names(this.features, "x");
  }

  outputNames() {
    return names(this.outputs, this.output);
  }

  /** Time steps from the values of each, in the shape and with the number texts that the API takes: a chunk. */
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

  /** The inverse: the time steps of a chunk that the API gave, each as nested lists. */
  steps(chunk) {
    if (!this.parts.length) return chunk;
    const columns = this.parts.map(({ name }) => chunk[name]);
    return columns[0].map((_, i) => columns.map((column) => column[i]));
  }

  /** What a forecast feeds back is drawn for models with one input. */
  get canForecast() {
    return Boolean(this.info.feedback) && !this.parts.length;
  }

  /** The indices of the features that a forecast has to be given. */
  supplied() {
    return (this.info.feedback?.sources ?? []).flatMap((source, i) => (source < 0 ? [i] : []));
  }

  /**
   * The input that follows a prediction when the model is rolled out; held: the values of features that the caller
   * supplies, by index.
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

/** The served versions of one model, the first takes new sessions. */
export function versionsOf(models, name) {
  return models.filter((model) => model.name === name);
}

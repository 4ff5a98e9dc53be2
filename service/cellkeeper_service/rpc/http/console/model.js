import { jsonNumber, nested, size } from "./tensor.js";

/** What the API says of a served version of a model, and what follows from it. */
export class Model {
  constructor(info) {
    Object.assign(this, { info, name: info.name, fingerprint: info.fingerprint });
    this.tokens = Number(info.vocabulary ?? 0) > 0;
    this.inputShape = this.tokens ? [] : info.input.shape;
    this.features = size(this.inputShape);
    const named = info.outputs.find(({ name }) => name === "prediction") ?? info.outputs[0];
    this.output = named?.name ?? "prediction";
    this.outputs = named ? size(named.shape) : 0;
  }

  /** Names of the input's values: the model's feature names, or x[i]. */
  inputNames() {
    if (this.tokens) return ["token"];
    const given = this.info.feature_names ?? [];
    return given.length === this.features ? given : names(this.features, "x");
  }

  outputNames() {
    return names(this.outputs, this.output);
  }

  /** One time step's input from its values, in the shape and with the number texts that the API takes. */
  timeStep(values) {
    return nested(values.map(jsonNumber), this.inputShape);
  }

  get canForecast() {
    return Boolean(this.info.feedback);
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

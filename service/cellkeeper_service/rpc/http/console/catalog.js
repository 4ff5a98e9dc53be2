import { Model, versionsOf } from "./model.js";

/** The served models. Fetched once for each view, and again if a session's version is not among them. */
const FRESH_MS = 5000;

export class Catalog {
  #models = null;
  #at = 0;

  constructor(api) {
    this.api = api;
  }

  /** Returns every served version as a Model; the first of each name takes new sessions. */
  async list({ fresh = false } = {}) {
    if (!this.#models || fresh || performance.now() - this.#at > FRESH_MS) {
      const { models } = await this.api.get("/v1/models");
      this.#models = models.map((info) => new Model(info));
      this.#at = performance.now();
    }
    return this.#models;
  }

  /** Returns the names of the served models, sorted. */
  async names() {
    return [...new Set((await this.list()).map(({ name }) => name))].sort();
  }

  /** Returns the version of a model that a session belongs to, or null if it is not served. */
  async version(name, fingerprint) {
    const found = async (options) =>
      versionsOf(await this.list(options), name).find((model) => model.fingerprint === fingerprint);
    return (await found()) ?? (await found({ fresh: true })) ?? null;
  }
}

import { modelPath } from "./api.js";

/** Sessions found by the beginning of their ids, of one model or one model after another, a page at a time. */

const MOST_EMPTY_PAGES = 50; // of a store that pages by cursor: a page may hold none though more follow

export class SessionSearch {
  #left;
  #token = "";

  /** models: names. signal: ends its calls. */
  constructor(api, models, prefix, signal) {
    Object.assign(this, { api, prefix, signal });
    this.#left = [...models];
  }

  /** Whether everything has been looked at. */
  get ended() {
    return !this.#left.length;
  }

  /** The next sessions, about `size`; none where the search has ended, or where much was looked at and nothing found. */
  async page(size) {
    const found = [];
    for (let pages = 0; !this.ended && found.length < size && pages < MOST_EMPTY_PAGES; pages += 1) {
      const query = new URLSearchParams({ page_size: size - found.length });
      if (this.prefix) query.set("prefix", this.prefix);
      if (this.#token) query.set("page_token", this.#token);
      const path = `${modelPath(this.#left[0])}/sessions?${query}`;
      const { sessions, next_page_token: next } = await this.api.get(path, { signal: this.signal });
      found.push(...sessions);
      this.#token = next;
      if (!next) this.#left.shift();
    }
    return found;
  }
}

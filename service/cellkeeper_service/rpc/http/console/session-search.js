import { modelPath } from "./api.js";

/** Finds sessions by the beginning of their ids, in one model or one model after another, a page at a time. */

const MOST_EMPTY_PAGES = 50; // for stores that page by cursor: a page may be empty although more follow

export class SessionSearch {
  #left;
  #token = "";

  /** models: names. signal: aborts the calls. */
  constructor(api, models, prefix, signal) {
    Object.assign(this, { api, prefix, signal });
    this.#left = [...models];
  }

  /** True once everything has been searched. */
  get ended() {
    return !this.#left.length;
  }

  /** Returns about `size` more sessions; none if the search has ended, or if a long search found nothing. */
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

/** Tracks whether the server answers. If it does not, asks again until it does, and tells the views. */

const FIRST_WAIT_MS = 400;
const LONGEST_WAIT_MS = 4000;

export class Connection extends EventTarget {
  #lost = false;
  #wait = FIRST_WAIT_MS;

  /** True while the server does not answer. Events: "lost", "restored". */
  get lost() {
    return this.#lost;
  }

  answered() {
    if (!this.#lost) return;
    this.#lost = false;
    this.#wait = FIRST_WAIT_MS;
    this.dispatchEvent(new Event("restored"));
  }

  silent() {
    if (this.#lost) return;
    this.#lost = true;
    this.dispatchEvent(new Event("lost"));
    this.#askAgain();
  }

  /** Asks the server, after a loss that may mean that it does not answer. */
  async check() {
    if (this.#lost) return;
    try {
      await this.#ask();
    } catch {
      this.silent();
    }
  }

  #askAgain() {
    setTimeout(async () => {
      if (!this.#lost) return;
      try {
        await this.#ask();
        this.answered();
      } catch {
        this.#wait = Math.min(this.#wait * 1.5, LONGEST_WAIT_MS);
        this.#askAgain();
      }
    }, this.#wait);
  }

  /** Any answer will do, even a refusal. */
  #ask() {
    return fetch("/v1/server", { cache: "no-store", signal: AbortSignal.timeout(LONGEST_WAIT_MS) });
  }
}

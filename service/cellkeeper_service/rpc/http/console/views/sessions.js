import { sessionPath } from "../api.js";
import { sessionPage } from "../catalog.js";
import { announce } from "../dialogs.js";
import { element, empty, problem, put } from "../element.js";
import { counted, integer } from "../format.js";
import { sessionHash, sessionsHash } from "../route.js";
import { deleteSessions, resetSessions } from "./bulk.js";
import { SessionTable } from "./session-table.js";

/** Sessions of a model: found by prefix, a page at a time, several selected at once. */

const PAGE_SIZE = 100;
const SEARCH_WAIT_MS = 180;
const MOST_EMPTY_PAGES = 50; // of a store that pages by cursor: a page may hold none though more follow

export class SessionsView {
  #calls = null;
  #timer = 0;
  #next = "";

  constructor(context, { model, prefix }) {
    this.context = context;
    this.model = model;
    this.prefix = prefix;
    this.title = model ? `Sessions of ${model}` : "Sessions";
    this.heading = element("h1", { tabindex: -1 }, "Sessions");
    this.search = element("input", {
      type: "search",
      value: prefix,
      placeholder: "Find by the beginning of an id",
      "aria-label": "Find sessions by the beginning of their id",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.#typed(),
      onkeydown: (event) => this.#searchKey(event),
    });
    this.models = element("select", {
      "aria-label": "Model",
      onchange: () => (location.hash = sessionsHash(this.models.value, this.prefix)),
    });
    this.table = new SessionTable({ selected: (ids) => this.#selected(ids), up: () => this.search.focus() });
    this.selection = element("div", { class: "row" });
    this.state = element("div", {});
    this.count = element("span", { role: "status" });
    this.more = element(
      "button",
      { class: "button", type: "button", hidden: true, onclick: () => this.#page() },
      "Load more",
    );
    const refresh = element("button", { class: "button", type: "button", onclick: () => this.#load() }, "Refresh");
    const searching = element("div", { class: "search" }, this.search, element("kbd", { "aria-hidden": "true" }, "/"));
    this.element = element(
      "div",
      { class: "page" },
      element("div", { class: "page-head" }, this.heading),
      element(
        "section",
        { class: "card", "aria-label": "Sessions" },
        element("div", { class: "toolbar" }, this.models, searching, refresh, this.selection),
        this.table.element,
        this.state,
        element("div", { class: "table-foot" }, this.count, this.more),
      ),
    );
    this.#begin();
  }

  close() {
    this.#calls?.abort();
    clearTimeout(this.#timer);
  }

  restored() {
    this.#begin();
  }

  /** The same model with another prefix stays in this view. */
  follow({ model, prefix }) {
    if (model !== this.model || model === null) return false;
    if (prefix !== this.prefix) {
      this.prefix = prefix;
      this.search.value = prefix;
      this.#load();
    }
    return true;
  }

  async #begin() {
    try {
      const names = await this.context.catalog.names();
      if (!names.length)
        return this.#nothing(
          empty("No model is served.", "Start the server with the folder of a bundle: cellkeeper-server serve BUNDLE"),
        );
      if (this.model === null) return location.replace(sessionsHash(names[0]));
      if (!names.includes(this.model)) names.unshift(this.model);
      this.models.replaceChildren(
        ...names.map((name) => element("option", { value: name, selected: name === this.model }, name)),
      );
      await this.#load();
    } catch (error) {
      this.#nothing(problem(error));
    }
    return undefined;
  }

  #typed() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#take();
      this.#load();
    }, SEARCH_WAIT_MS);
  }

  /** What is typed becomes a part of the address, so that going back finds it. */
  #take() {
    clearTimeout(this.#timer);
    this.prefix = this.search.value;
    history.replaceState(null, "", sessionsHash(this.model, this.prefix));
  }

  async #searchKey(event) {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      this.table.focus();
    } else if (event.key === "Enter" && this.search.value) {
      event.preventDefault();
      this.#take();
      await this.#open(this.prefix);
    }
  }

  /** Opens the session of just that id, where there is one; otherwise goes to the first that was found. */
  async #open(id) {
    try {
      await this.context.api.get(sessionPath(this.model, id));
      location.hash = sessionHash(this.model, id);
    } catch {
      await this.#load();
      this.table.focus();
    }
  }

  async #load() {
    this.#calls?.abort();
    this.#calls = new AbortController();
    this.#next = "";
    this.table.wait();
    this.state.replaceChildren();
    await this.#page({ first: true });
  }

  async #page({ first = false } = {}) {
    const { signal } = this.#calls;
    this.more.disabled = true;
    try {
      const versions = (await this.context.catalog.list()).filter(({ name }) => name === this.model);
      let found = [];
      for (let pages = 0; pages < MOST_EMPTY_PAGES && !found.length; pages += 1) {
        const page = await sessionPage(this.context.api, this.model, {
          prefix: this.prefix,
          size: PAGE_SIZE,
          token: this.#next,
          signal,
        });
        found = page.sessions;
        this.#next = page.next;
        if (!this.#next) break;
      }
      if (signal.aborted) return;
      if (first) this.table.clear();
      this.table.add(this.model, found, versions);
      this.#tell();
    } catch (error) {
      if (signal.aborted) return;
      if (first) this.table.clear();
      put(this.state, problem(error));
      this.count.textContent = "";
    } finally {
      this.more.disabled = false;
    }
  }

  #tell() {
    const shown = this.table.size;
    this.more.hidden = !this.#next;
    this.count.textContent = this.#next ? `${integer(shown)} shown, more follow` : counted(shown, "session");
    announce(this.count.textContent);
    if (shown) put(this.state);
    else if (this.#next)
      put(
        this.state,
        empty("Nothing found yet.", "The store has more to look through: load more, or type more of the id."),
      );
    else if (this.prefix)
      put(
        this.state,
        empty(
          `No session of ${this.model} begins with “${this.prefix}”.`,
          "Ids are case-sensitive. Type less of it, or choose another model.",
        ),
      );
    else
      put(
        this.state,
        empty(
          `${this.model} has no sessions yet.`,
          "One begins with its first step, for instance in Python:",
          `Client(TARGET).session("pump-17", model="${this.model}").step(x)`,
        ),
      );
  }

  #nothing(shown) {
    this.table.clear();
    put(this.state, shown);
    return undefined;
  }

  #selected(sessions) {
    const many = counted(sessions.length, "session");
    const act = (word, danger, does) =>
      element(
        "button",
        {
          class: `button ${danger}`,
          type: "button",
          onclick: async () => (await does(this.context.api, this.model, sessions)) && this.#load(),
        },
        `${word} ${many}…`,
      );
    put(
      this.selection,
      sessions.length ? [act("Reset", "", resetSessions), act("Delete", "danger", deleteSessions)] : [],
    );
  }
}

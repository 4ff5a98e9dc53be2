import { sessionPath } from "../api.js";
import { announce } from "../dialogs.js";
import { element, empty, problem, put } from "../element.js";
import { counted, integer } from "../format.js";
import { goOn, sessionHash, sessionsHash } from "../route.js";
import { SessionSearch } from "../session-search.js";
import { deleteSessions, resetSessions } from "./bulk.js";
import { SessionTable } from "./session-table.js";

/** Sessions of one model or of all: found by prefix, a page at a time; several can be selected. */

const PAGE_SIZE = 100;
const SEARCH_WAIT_MS = 180;

export class SessionsView {
  #calls = null;
  #timer = 0;
  #found = null; // the search whose results are shown

  constructor(context, { model, prefix }) {
    this.context = context;
    this.model = model; // null: all models
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
      onchange: () => (location.hash = sessionsHash(this.models.value || null, this.prefix)),
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

  /** Stays in this view for the same model with another prefix. */
  follow({ model, prefix }) {
    if (model !== this.model) return false;
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
      if (this.model === null && names.length === 1) return location.replace(sessionsHash(names[0], this.prefix));
      this.names = this.model === null ? names : [this.model];
      this.models.replaceChildren(...this.#options(names));
      await this.#load();
    } catch (error) {
      this.#nothing(problem(error));
    }
    return undefined;
  }

  #options(names) {
    const option = (value, text) => element("option", { value, selected: value === (this.model ?? "") }, text);
    const listed = this.model === null || names.includes(this.model) ? names : [this.model, ...names];
    return [...(listed.length > 1 ? [option("", "All models")] : []), ...listed.map((name) => option(name, name))];
  }

  #typed() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#take();
      this.#load();
    }, SEARCH_WAIT_MS);
  }

  /** Puts what is typed into the address, so that going back finds it. */
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

  /** Opens the session with exactly this id if there is one; otherwise focuses the first that was found. */
  async #open(id) {
    const from = location.hash;
    for (const model of this.names) {
      try {
        await this.context.api.get(sessionPath(model, id));
        goOn(from, sessionHash(model, id));
        return;
      } catch {
        // not in this model
      }
    }
    await this.#load();
    this.table.focus();
  }

  async #load() {
    this.#calls?.abort();
    this.#calls = new AbortController();
    this.#found = new SessionSearch(this.context.api, this.names, this.prefix, this.#calls.signal);
    this.table.wait();
    this.state.replaceChildren();
    await this.#page({ first: true });
  }

  async #page({ first = false } = {}) {
    const { signal } = this.#calls;
    this.more.disabled = true;
    try {
      const models = await this.context.catalog.list();
      const sessions = await this.#found.page(PAGE_SIZE);
      if (signal.aborted) return;
      if (first) this.table.clear();
      this.table.add(sessions, models, { named: this.model === null });
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
    this.more.hidden = this.#found.ended;
    this.count.textContent = this.#found.ended ? counted(shown, "session") : `${integer(shown)} shown, more follow`;
    announce(this.count.textContent);
    put(this.state, shown ? [] : this.#none());
  }

  #none() {
    const of = this.model ?? "any model";
    if (!this.#found.ended) {
      return empty("Nothing found yet.", "The store has more to look through: load more, or type more of the id.");
    }
    if (this.prefix) {
      const advice = "Ids are case-sensitive. Type less of it, or choose another model.";
      return empty(`No session of ${of} begins with “${this.prefix}”.`, advice);
    }
    const program = `Client(TARGET).session("pump-17", model="${this.names[0]}").step(x)`;
    const advice = "A session begins with its first step, for example in Python:";
    return empty(`There is no session of ${of} yet.`, advice, element("code", {}, program));
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
          onclick: async () => (await does(this.context.api, sessions)) && this.#load(),
        },
        `${word} ${many}…`,
      );
    put(
      this.selection,
      sessions.length ? [act("Reset", "", resetSessions), act("Delete", "danger", deleteSessions)] : [],
    );
  }
}

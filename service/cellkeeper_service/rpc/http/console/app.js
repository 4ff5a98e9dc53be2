import { Api } from "./api.js";
import { Catalog } from "./catalog.js";
import { Connection } from "./connection.js";
import { ask, field } from "./dialogs.js";
import { element, empty, put } from "./element.js";
import { parseRoute, sessionsHash } from "./route.js";
import { Theme } from "./theme.js";
import { CompareView } from "./views/compare.js";
import { ModelsView } from "./views/models.js";
import { NowView } from "./views/now.js";
import { SessionView } from "./views/session.js";
import { SessionsView } from "./views/sessions.js";

/** The console: shows the view for the address, holds the token, and says when the server does not answer. */

const VIEWS = { sessions: SessionsView, session: SessionView, compare: CompareView, models: ModelsView, now: NowView };
const TABS = { session: "sessions", compare: "sessions" };

class Console {
  #shown = null;
  #asking = null;

  constructor() {
    this.rights = new Set();
    this.token = { value: "" }; // in memory only: a reload asks for it again
    this.connection = new Connection();
    this.theme = new Theme(document.getElementById("theme"));
    this.api = new Api({
      token: this.token,
      connection: this.connection,
      onUnauthenticated: (error, used) => this.#unauthenticated(error, used),
    });
    this.catalog = new Catalog(this.api);
    this.main = document.getElementById("view");
    this.connection.addEventListener("lost", () =>
      this.#banner("The server does not answer. This page keeps trying."),
    );
    this.connection.addEventListener("restored", () => {
      this.#banner("");
      this.#describeServer();
      this.#shown?.restored?.();
    });
    document.getElementById("token").addEventListener("click", () => this.#askForToken(null));
    addEventListener("hashchange", () => this.#show());
    addEventListener("keydown", (event) => this.#key(event));
    this.#begin();
  }

  async #begin() {
    await this.#describeServer();
    this.#show();
  }

  #show() {
    const route = parseRoute(location.hash);
    const kind = VIEWS[route.view];
    if (kind && this.#shown instanceof kind && this.#shown.follow?.(route)) return;
    this.#shown?.close?.();
    this.#shown = kind ? new kind(this, route) : new Unknown(route);
    put(this.main, this.#shown.element);
    document.title = `${this.#shown.title} · Cellkeeper`;
    this.#markTab(TABS[route.view] ?? route.view);
    if (route.model) document.querySelector('[data-tab="sessions"]').href = sessionsHash(route.model);
    this.main.querySelector("h1")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  #markTab(name) {
    for (const tab of document.querySelectorAll("[data-tab]")) {
      if (tab.dataset.tab === name) tab.setAttribute("aria-current", "page");
      else tab.removeAttribute("aria-current");
    }
  }

  #key(event) {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, dialog")) return;
    event.preventDefault();
    const search = this.main.querySelector('input[type="search"]');
    if (search) search.focus();
    else location.hash = document.querySelector('[data-tab="sessions"]').getAttribute("href");
  }

  #banner(text) {
    put(document.getElementById("banner"), text && element("p", {}, text));
  }

  async #describeServer() {
    try {
      const server = await this.api.get("/v1/server");
      this.rights = new Set(server.rights);
      const where = [server.tenant && `tenant ${server.tenant}`, `store ${server.store}`, `version ${server.version}`];
      document.getElementById("server").textContent = where.filter(Boolean).join(" · ");
      document.getElementById("token").hidden = !server.tokens;
    } catch {
      // the banner says so, or the dialog that asks for a token
    }
  }

  /** Opens one dialog, however many calls were refused at once. Resolves to true if there is another token now. */
  #unauthenticated(error, used) {
    if (this.token.value !== used) return Promise.resolve(true);
    this.#asking ??= this.#askForToken(used ? error.message : null).finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #askForToken(refused) {
    const given = await ask({
      title: "Enter a token",
      text: [
        refused && element("p", { class: "problem", role: "alert" }, `The server refused the token: ${refused}`),
        "It says who you are and what you may do here. It is kept only in this page's memory, and is gone after a reload.",
      ].filter(Boolean),
      fields: [field("Token", { name: "token", type: "password", required: true })],
      button: "Use token",
      act: (form) => form.elements.token.value.trim(),
    });
    if (!given) return false;
    document.getElementById("token").hidden = false;
    const again = this.#asking === null;
    this.token.value = given;
    if (again) {
      this.#describeServer();
      this.#shown?.restored?.();
    }
    return true;
  }
}

class Unknown {
  title = "No such page";

  constructor({ path }) {
    const link = element("a", { class: "button", href: "#/" }, "Go to the sessions");
    this.element = element(
      "div",
      { class: "card" },
      element("h1", { class: "visually-hidden", tabindex: -1 }, this.title),
      empty("There is no such page.", `The console has no view at ${path}.`),
      element("div", { class: "empty" }, link),
    );
  }
}

new Console();

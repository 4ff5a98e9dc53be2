import { newRequestId } from "../api.js";
import { ask, field } from "../dialogs.js";
import { card, element, empty, page, problem, put } from "../element.js";
import { readable } from "../format.js";
import { compareHash, goOn, modelHash, sessionsHash } from "../route.js";
import { SessionFeed } from "../session-feed.js";
import { deleteSessions, resetSessions } from "./bulk.js";
import { ForecastForm } from "./forecast-form.js";
import { HistoryCard } from "./history-card.js";
import { PeekCard } from "./peek-card.js";
import { PositionCard } from "./position-card.js";
import { StateCard } from "./state-card.js";

/** One session: its position, its inputs and outputs, and its state; live while the page is open. */
export class SessionView {
  #parts = [];
  #laid = null; // the columns that are shown, and their version

  constructor(context, { model, session }) {
    this.context = context;
    this.model = model;
    this.session = session;
    this.title = readable(session);
    this.feed = new SessionFeed(context, model, session);
    this.badge = statusBadge();
    this.actions = element("div", { class: "row" });
    this.body = element("div", {}, waiting());
    const [all, its] = [sessionsHash(model), modelHash(model)];
    const crumbs = [element("a", { href: all }, "Sessions"), " of ", element("a", { href: its }, model)];
    this.element = page(this.title, { crumbs, beside: this.badge, end: this.actions }, this.body);
    this.feed.addEventListener("loaded", () => this.#lay());
    this.feed.addEventListener("status", () => showStatus(this.badge, this.feed.status));
    this.feed.addEventListener("change", ({ detail }) => this.#change(detail));
    this.feed.addEventListener("failed", ({ detail }) => this.#fail(detail));
    this.feed.load();
  }

  close() {
    this.feed.close();
    for (const part of this.#parts) part.close?.();
    this.#parts = [];
  }

  restored() {
    this.feed.load();
  }

  /** Keeps the cards of the same version, so that typed values survive while the server does not answer. */
  #lay() {
    const version = this.feed.model?.fingerprint ?? null;
    if (this.#laid?.version !== version) this.#laid = { version, columns: this.#columns() };
    put(this.body, this.#laid.columns);
    put(this.actions, this.#buttons());
    this.#change({ reset: false });
  }

  #columns() {
    for (const part of this.#parts) part.close?.();
    const { context, feed } = this;
    this.position = new PositionCard(feed);
    this.#parts = [this.position];
    if (!feed.model) return element("div", { class: "columns" }, this.#notServed(), this.position.element);
    this.forecast = new ForecastForm(context, feed, () => this.#draw());
    this.history = new HistoryCard(feed.model, { end: this.forecast.element });
    this.state = new StateCard(context.theme);
    this.peek = new PeekCard(context, feed, () => this.#draw());
    this.#parts.push(this.forecast, this.history, this.state, this.peek);
    const right = element("div", { class: "stack" }, this.position.element, this.peek.element);
    const left = element("div", { class: "stack" }, this.history.element, this.state.element);
    return element("div", { class: "columns" }, left, right);
  }

  #notServed() {
    const link = element("a", { class: "button", href: modelHash(this.model) }, "Carry it over in Models");
    const advice = "Its state can be kept: carry it over to another version of the model.";
    return element("div", { class: "card" }, empty("Its version of the model is not served.", advice, link));
  }

  #buttons() {
    const may = this.context.rights.has("step");
    const title = may ? null : "The token lacks the right to step";
    const button = (text, kind, act) =>
      element("button", { class: `button ${kind}`, type: "button", onclick: act, disabled: !may, title }, text);
    return [
      button("Fork as what-if…", "primary", () => this.#fork()),
      button("Reset…", "", () => resetSessions(this.context.api, [this.feed.info])),
      button("Delete…", "danger", () => this.#delete()),
    ];
  }

  #change({ reset }) {
    if (this.gone) {
      this.gone = false;
      this.#laid = null; // what was shown belongs to another generation
      this.#lay();
      return;
    }
    if (reset) this.state?.clear();
    this.position.update();
    this.state?.update(this.feed);
    this.forecast?.moved();
    this.peek?.moved();
    this.#draw();
  }

  #draw() {
    const ahead = this.forecast?.rows() ?? this.peek?.rows();
    this.history?.update(this.feed, { ahead });
  }

  /** Keeps what is shown if only the store or the server does not answer. */
  #fail(error) {
    this.gone = error.reason === "SESSION_NOT_FOUND";
    if (this.feed.states && !this.gone) {
      this.history.warn(error);
      return;
    }
    put(this.actions);
    const again = element("button", { class: "button", type: "button", onclick: () => this.feed.load() }, "Try again");
    const link = element("a", { class: "button", href: sessionsHash(this.model) }, "Look for it in the sessions");
    const shown = this.gone
      ? empty(`There is no session ${this.title}.`, error.message, error.advice)
      : problem(error);
    const end = element("div", { class: this.gone ? "empty" : "row" }, this.gone ? link : again);
    put(this.body, element("div", { class: "card" }, element("div", { class: "card-body" }, shown, end)));
  }

  async #fork() {
    const from = location.hash;
    const forked = await ask({
      title: `Fork ${this.title}`,
      text: "A copy with the same state, log and step, under another id. It is independent: its steps change nothing here. Both are shown side by side.",
      fields: [
        field("Id of the copy", { name: "target", value: `${this.session}/what-if`, required: true, maxlength: 256 }),
      ],
      button: "Fork",
      act: async (form) => {
        const target = form.elements.target.value;
        form.requestId ??= newRequestId();
        await this.context.api.post(`${this.feed.path}/fork`, { target, request_id: form.requestId });
        return target;
      },
    });
    if (forked) goOn(from, compareHash(this.model, this.session, forked));
  }

  async #delete() {
    const from = location.hash;
    if (await deleteSessions(this.context.api, [this.feed.info])) goOn(from, sessionsHash(this.model));
  }
}

export function statusBadge() {
  return element("span", { class: "badge waiting", role: "status" }, "loading");
}

/** status: live, waiting or ended. */
export function showStatus(badge, status) {
  const [text, kind] = {
    live: ["live", "good live"],
    waiting: ["connecting", "warn waiting"],
    ended: ["gone", "bad waiting"],
  }[status];
  if (badge.textContent === text) return;
  badge.className = `badge ${kind}`;
  badge.textContent = text;
}

function waiting() {
  return element(
    "div",
    { class: "columns", "aria-busy": "true" },
    card("Inputs and outputs", {}, element("div", { class: "chart-message" }, "Loading")),
    card("Position", {}, element("div", { class: "chart-message" }, "Loading")),
  );
}

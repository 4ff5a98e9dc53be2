import { extent } from "../charts/axis.js";
import { card, element, page, problem, put } from "../element.js";
import { integer, readable } from "../format.js";
import { common, firstDifference } from "../history.js";
import { sessionHash, sessionsHash } from "../route.js";
import { SessionFeed } from "../session-feed.js";
import { HistoryCard, xDomain } from "./history-card.js";
import { showStatus, statusBadge } from "./session.js";
import { StepForm } from "./step-form.js";

/** Two sessions side by side, on the same axes, with the first step at which they differ. */
export class CompareView {
  #cards = [];

  constructor(context, { model, session, other }) {
    this.context = context;
    this.model = model;
    this.title = `${readable(session)} and ${readable(other)}`;
    this.verdict = element("div", { class: "note", role: "status" }, "Loading both");
    this.sides = [session, other].map((id) => this.#side(id));
    this.form = element("div", {});
    const halves = this.sides.map(({ element: shown }) => shown);
    this.element = page(
      "Side by side",
      { crumbs: [element("a", { href: sessionsHash(model) }, "Sessions"), " of ", model] },
      this.verdict,
      element("div", { class: "halves" }, halves),
      this.form,
    );
    for (const { feed } of this.sides) feed.load();
  }

  close() {
    for (const { feed } of this.sides) feed.close();
    for (const each of this.#cards) each.close();
  }

  restored() {
    for (const { feed } of this.sides) feed.load();
  }

  #side(id) {
    const feed = new SessionFeed(this.context, this.model, id);
    const badge = statusBadge();
    const step = element("span", { class: "muted" });
    const link = element("a", { href: sessionHash(this.model, id), class: "mono wrap-anywhere" }, readable(id));
    const body = element(
      "div",
      {},
      card("Inputs and outputs", {}, element("div", { class: "chart-message" }, "Loading")),
    );
    const side = { feed, step, body, card: null };
    side.element = element(
      "div",
      { class: "stack" },
      element("div", { class: "row" }, element("h2", {}, link), step, badge),
      body,
    );
    feed.addEventListener("loaded", () => this.#lay(side));
    feed.addEventListener("change", () => this.#draw());
    feed.addEventListener("status", () => showStatus(badge, feed.status));
    feed.addEventListener("failed", ({ detail }) => this.#fail(side, detail));
    return side;
  }

  #lay(side) {
    side.card?.close();
    if (!side.feed.model) {
      this.#fail(side, new Error("Its version of the model is not served."));
      return;
    }
    side.failed = false;
    side.card = new HistoryCard(side.feed.model);
    side.card.details.open = true;
    this.#cards = this.sides.map(({ card }) => card).filter(Boolean);
    put(side.body, side.card.element);
    const fork = this.sides[1];
    if (side === fork && this.stepForm?.fields.model.fingerprint !== fork.feed.model.fingerprint) {
      this.stepForm = new StepForm(this.context, fork.feed);
      put(this.form, this.stepForm.element);
    }
    this.#draw();
  }

  #fail(side, error) {
    side.failed = true;
    if (side.feed.states) side.card?.warn(error);
    else put(side.body, element("div", { class: "card" }, element("div", { class: "card-body" }, problem(error))));
    put(this.verdict, `${readable(side.feed.session)} cannot be compared. ${error.message}`);
  }

  #draw() {
    const ready = this.sides.filter(({ card }) => card);
    const views = ready.map(({ feed }) => ({ rows: feed.history.list(), now: feed.now }));
    const domains = views.map(({ rows, now }) => xDomain(rows, now));
    const x = [Math.min(...domains.map(([from]) => from)), Math.max(...domains.map(([, to]) => to))];
    const values = (which) => extent(views.flatMap(({ rows }) => rows.flatMap((row) => row[which] ?? [])));
    const shared = { x, inputsY: values("input"), outputsY: values("output") };
    const difference = ready.length === 2 ? firstDifference(ready[0].feed.history, ready[1].feed.history) : null;
    for (const { card, feed, step } of ready) {
      card.update(feed, { ...shared, differs: difference?.step });
      step.textContent = `step ${integer(feed.position.step)}`;
    }
    this.stepForm?.moved();
    if (ready.length === 2 && !this.sides.some(({ failed }) => failed)) this.#tell(difference);
  }

  #tell(difference) {
    const [one, other] = this.sides.map(({ feed }) => feed);
    const both = common(one.history, other.history);
    let text;
    if (difference) {
      text = `They first differ at step ${one.history.axis.text(difference.step)}, in the ${difference.what}.`;
    } else if (both) {
      text = `No difference: equal in every step that both logs have, ${both.map((step) => one.history.axis.text(step)).join(" to ")}.`;
    } else {
      text =
        "Their logs have no step in common. Step both, here or from a program, and they are compared from there on.";
    }
    if (this.verdict.textContent !== text) put(this.verdict, text);
  }
}

import { element, svg } from "../element.js";
import { bytes, integer } from "../format.js";

const LEAST_SHARE = 0.02; // keeps the bar of a log that is not empty visible

/** The input log as a bar: from the checkpoint to the session's step, relative to the most that a log may hold. */
export class LogBar {
  constructor() {
    this.bar = svg("svg", {
      class: "log-bar",
      "aria-hidden": "true",
      preserveAspectRatio: "none",
      viewBox: "0 0 100 18",
    });
    this.from = element("span", {});
    this.to = element("span", {});
    this.text = element("p", { class: "small muted" });
    this.element = element(
      "div",
      { class: "field" },
      this.bar,
      element("div", { class: "row spread small" }, this.from, this.to),
      this.text,
    );
  }

  /** checkpoint, step, held: numbers of steps. size: bytes held. most: steps that the log may hold, if known. */
  update({ checkpoint, step, held, size, most }) {
    const share = most && held ? Math.max(LEAST_SHARE, Math.min(1, held / most)) : 0;
    this.bar.toggleAttribute("hidden", !most);
    this.bar.classList.toggle("full", share > 0.8);
    this.bar.replaceChildren(
      svg("rect", { class: "track", x: 0.25, y: 4, width: 99.5, height: 10 }),
      svg("rect", { class: "filled", x: 0.25, y: 4, width: 99.5 * share, height: 10 }),
      svg("rect", { class: "mark", x: 0, y: 1, width: 0.8, height: 16 }),
    );
    this.from.textContent = `checkpoint ${integer(checkpoint)}`;
    this.to.textContent = `now ${integer(step)}`;
    this.text.textContent = held
      ? `${integer(held)}${most ? ` of at most ${integer(most)}` : ""} steps in the log, ${bytes(size)} of inputs`
      : "The log is empty: the state at this step is in the store.";
  }
}

import { LogBar } from "../charts/log-bar.js";
import { card, element, facts, put } from "../element.js";
import { duration, integer, short } from "../format.js";

const TICK_MS = 1000;

/** A session's position, version and times, and the length of its log. */
export class PositionCard {
  constructor(feed) {
    this.feed = feed;
    this.step = element("span", { class: "figure" });
    this.generation = new HexValue("generation");
    this.head = new HexValue("head");
    this.version = new HexValue("version");
    this.role = element("span", {});
    const text = () => element("span", {});
    [this.age, this.idle, this.expires, this.hot] = [text(), text(), text(), text()];
    this.numerics = element("span", { class: "mono small wrap-anywhere" });
    const list = facts([
      ["Step", this.step, "Time steps consumed"],
      [
        "Generation",
        this.generation.element,
        "Identifies this generation: reset, set-state, fork and carry-over begin a new one",
      ],
      ["Head", this.head.element, "Hash of the generation and of every input since: it identifies this history"],
      ["Version", [this.version.element, " ", this.role], "Fingerprint of the model version that it belongs to"],
      ["Age", this.age, "Since this generation began"],
      ["Idle", this.idle, "Since its last committed step"],
      ["Expires", this.expires, "When its idle time-out ends"],
      ["State", this.hot, "Whether the server that answers this page has the state ready"],
      ["Numerics", this.numerics, "What decides the bits: engine, its version, instruction set or device"],
    ]);
    this.log = new LogBar();
    this.element = card("Position", {}, list, element("h3", {}, "Checkpoint and log"), this.log.element);
    this.timer = setInterval(() => this.#tick(), TICK_MS);
    this.update();
  }

  close() {
    clearInterval(this.timer);
  }

  update() {
    const { info, model } = this.feed;
    this.shownAt = performance.now();
    this.step.textContent = integer(info.position.step);
    this.step.dataset.step = info.position.step;
    this.generation.show(info.position.generation);
    this.head.show(info.position.head);
    this.version.show(info.fingerprint);
    put(this.role, model ? [] : element("span", { class: "badge warn" }, "not served"));
    this.hot.textContent = info.hot ? "held by the engine (hot)" : "in the store";
    this.numerics.textContent = info.numerics ?? "–";
    this.log.update({
      checkpoint: info.checkpoint_step,
      step: info.position.step,
      held: info.log.steps,
      size: info.log.bytes,
      most: model?.info.max_log_steps,
    });
    this.#tick();
  }

  /** Updates the times between two updates of the session. */
  #tick() {
    const { info } = this.feed;
    const passed = performance.now() - this.shownAt;
    const age = Number(info.age_ms) + passed;
    const idle = Number(info.idle_ms) + passed;
    const ttl = Number(info.ttl_ms);
    this.age.textContent = duration(age);
    this.age.title = `since ${new Date(Date.now() - age).toLocaleString()}`;
    this.idle.textContent = duration(idle);
    this.expires.textContent = ttl ? `in ${duration(Math.max(0, ttl - idle))} if idle` : "never";
  }
}

/** The first characters of a long hex value; a click shows all of it, for copying. */
class HexValue {
  #value = "";
  #whole = false;

  constructor(name) {
    this.name = name;
    const toggle = () => {
      this.#whole = !this.#whole;
      this.#draw();
    };
    this.element = element("button", { class: "hex", type: "button", onclick: toggle, title: "Show all" });
  }

  show(value) {
    if (value === this.#value) return;
    this.#value = value;
    this.#draw();
  }

  #draw() {
    this.element.textContent = this.#whole ? this.#value : short(this.#value);
    this.element.setAttribute("aria-expanded", String(this.#whole));
    this.element.setAttribute("aria-label", `${this.name} ${this.element.textContent}`);
  }
}

import { LogBar } from "../charts/log-bar.js";
import { card, element, facts, put } from "../element.js";
import { duration, integer, short } from "../format.js";

/** Where a session stands: its position, version, times, and how long its log is. */

const TICK_MS = 1000;

export class PositionCard {
  constructor(feed) {
    this.feed = feed;
    this.list = element("div", {});
    this.log = new LogBar();
    this.element = card("Position", {}, this.list, element("h3", {}, "Checkpoint and log"), this.log.element);
    this.shownAt = performance.now();
    this.timer = setInterval(() => this.#show(), TICK_MS);
    this.update();
  }

  close() {
    clearInterval(this.timer);
  }

  update() {
    this.shownAt = performance.now();
    this.#show();
    const { info, model } = this.feed;
    this.log.update({
      checkpoint: info.checkpoint_step,
      step: info.position.step,
      held: info.log.steps,
      size: info.log.bytes,
      most: model?.info.max_log_steps,
    });
  }

  #show() {
    const { info } = this.feed;
    const passed = performance.now() - this.shownAt;
    const idle = Number(info.idle_ms) + passed;
    const ttl = Number(info.ttl_ms);
    const hex = (value) => element("span", { class: "mono", title: value }, short(value));
    put(
      this.list,
      facts([
        [
          "Step",
          element("span", { class: "figure", "data-step": info.position.step }, integer(info.position.step)),
          "Time steps consumed",
        ],
        [
          "Generation",
          hex(info.position.generation),
          "Names this life of the session: reset, set-state, fork and carry-over begin another",
        ],
        [
          "Head",
          hex(info.position.head),
          "Hash of all inputs of this generation: two sessions with the same head took in the same",
        ],
        [
          "Version",
          [hex(info.fingerprint), " ", this.feed.model ? null : element("span", { class: "badge warn" }, "not served")],
          "Fingerprint of the model version that it belongs to",
        ],
        ["Age", duration(Number(info.age_ms) + passed), "Since this generation began"],
        ["Idle", duration(idle), "Since its last committed step"],
        ["Expires", ttl ? `in ${duration(Math.max(0, ttl - idle))} if idle` : "never", "When its idle time-out ends"],
        [
          "State",
          info.hot ? "beside the engine (hot)" : "in the store",
          "Whether the server that answers this page has the state ready",
        ],
        [
          "Numerics",
          element("span", { class: "mono small wrap-anywhere" }, info.numerics ?? "–"),
          "What decides the bits: engine, its version, instruction set or device",
        ],
      ]),
    );
  }
}

import { modelPath, newRequestId } from "../api.js";
import { ask, toast } from "../dialogs.js";
import { element, put } from "../element.js";
import { counted, integer, readable, short } from "../format.js";
import { SessionSearch } from "../session-search.js";

/** Moves a model's sessions from replaced versions to the one that takes new sessions, with progress. */

const PAGE_SIZE = 500;
const MOST_ITEMS = 250; // in one request, so that the progress bar moves
const POLICIES = {
  keep: "Keep the state as it is; the step stays",
  reset: "Start from the new version's initial state, at step 0",
};

export class CarryOver {
  /** versions: the served ones; the first takes the sessions over. done(): called at the end. */
  constructor(context, model, versions, done) {
    Object.assign(this, { context, model, versions, done });
    this.progress = element("div", {});
    const [current, ...replaced] = versions;
    this.current = current;
    const may = context.rights.has("admin");
    const title = may ? null : "The token lacks the right “admin”";
    const button = element(
      "button",
      { class: "button", type: "button", disabled: !may, title, onclick: () => this.#ask() },
      "Carry sessions over…",
    );
    this.element = element(
      "div",
      { class: "stack" },
      element("div", { class: "row" }, button, element("span", { class: "muted small" }, explained(current, replaced))),
      this.progress,
    );
  }

  async #ask() {
    const select = element(
      "select",
      { name: "policy", id: "carry-policy" },
      Object.entries(POLICIES).map(([value, text]) => element("option", { value }, text)),
    );
    const prefix = element("input", { name: "prefix", id: "carry-prefix", autocomplete: "off", spellcheck: "false" });
    const labelled = (label, control) =>
      element("div", { class: "field" }, element("label", { for: control.id }, label), control);
    const chosen = await ask({
      title: `Carry the sessions of ${this.model} over`,
      text: `Sessions of other versions go to ${short(this.current.fingerprint)}, each under a new generation. Clients that hold a position get an error. Sessions that belong to it already stay as they are.`,
      fields: [
        labelled("State", select),
        labelled("Only ids that begin with (empty: all)", prefix),
      ],
      button: "Carry over",
      act: (form) => ({ policy: form.elements.policy.value, prefix: form.elements.prefix.value }),
    });
    if (chosen) await this.#run(chosen);
  }

  async #run({ policy, prefix }) {
    const counts = { seen: 0, carried: 0, stayed: 0, failed: new Map() };
    const bar = element("progress", { class: "bar", "aria-label": "Carry-over" });
    const told = element("p", { class: "small", role: "status" });
    const failures = element("ul", { class: "named", hidden: true, tabindex: 0, "aria-label": "Refused" });
    put(this.progress, element("div", { class: "field" }, bar, told, failures));
    const tell = (ended = "") => {
      const failed = [...counts.failed.values()].reduce((sum, { count }) => sum + count, 0);
      told.textContent = `${ended}${integer(counts.seen)} checked: ${integer(counts.carried)} carried over, ${integer(counts.stayed)} belonged to it already, ${integer(failed)} refused.`;
      failures.hidden = !failed;
      put(
        failures,
        [...counts.failed].map(([message, { count, first }]) =>
          element("li", {}, `${counted(count, "session")}, the first ${readable(first)}: ${message}`),
        ),
      );
    };
    try {
      const moving = await this.#find(prefix, counts, tell);
      bar.max = Math.max(1, moving.length);
      const most = Math.min(Number(this.current.info.max_frame_items), MOST_ITEMS);
      for (let at = 0; at < moving.length; at += most) {
        await this.#carry(moving.slice(at, at + most), policy, counts);
        bar.value = Math.min(moving.length, at + most);
        tell();
      }
      bar.value = bar.max;
      tell("Done. ");
      toast(`${counted(counts.carried, "session")} of ${this.model} carried over.`);
    } catch (error) {
      tell(`Stopped: ${error.message} Sessions that were carried over stay so; run it again for the rest. `);
    }
    this.done();
  }

  async #find(prefix, counts, tell) {
    const moving = [];
    const search = new SessionSearch(this.context.api, [this.model], prefix);
    while (!search.ended) {
      for (const session of await search.page(PAGE_SIZE)) {
        counts.seen += 1;
        if (session.fingerprint === this.current.fingerprint) counts.stayed += 1;
        else if (session.position) moving.push(session);
      }
      tell();
    }
    return moving;
  }

  async #carry(sessions, policy, counts) {
    const items = sessions.map(({ session, position }) => ({
      session,
      generation: position.generation,
      request_id: newRequestId(),
      policy,
    }));
    const { results } = await this.context.api.post(`${modelPath(this.model)}/carry-over`, {
      items,
      fingerprint: this.current.fingerprint,
    });
    results.forEach(({ error }, i) => {
      if (!error) {
        counts.carried += 1;
        return;
      }
      const known = counts.failed.get(error.message) ?? { count: 0, first: sessions[i].session };
      known.count += 1;
      counts.failed.set(error.message, known);
    });
  }
}

function explained(current, replaced) {
  return replaced.length
    ? `to ${short(current.fingerprint)}, from ${replaced.map(({ fingerprint }) => short(fingerprint)).join(", ")} and any other version`
    : `to ${short(current.fingerprint)}, from any other version`;
}

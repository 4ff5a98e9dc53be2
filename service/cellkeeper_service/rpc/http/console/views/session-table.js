import { element } from "../element.js";
import { duration, integer, readable, short } from "../format.js";
import { versionsOf } from "../model.js";
import { sessionHash } from "../route.js";

/** The table of sessions. Arrow keys move through its rows, Enter opens, Space selects. */

const COLUMNS = [
  ["Session", "id", "The id that clients give it"],
  ["Model", "model", "The model that it belongs to"],
  ["Version", "", "The first characters of the fingerprint of the model version that it belongs to"],
  ["Step", "number", "How many time steps it has consumed"],
  ["Age", "number optional", "Since its present generation began: by open, reset, set-state, fork or carry-over"],
  ["Idle", "number", "Since its last committed step"],
  ["Expires", "number optional", "When its idle time-out ends, if nothing happens before"],
  [
    "Hot",
    "optional",
    "The engine of the server that answers this page holds its state; otherwise only the store has it",
  ],
];
const WAITING_ROWS = 12;

export class SessionTable {
  #rows = []; // [{ info, row, link, check }]
  #current = 0;

  /** on.selected([info]): called when the selection changes. on.up(): called for the up arrow in the first row. */
  constructor(on) {
    this.on = on;
    this.all = element("input", {
      type: "checkbox",
      "aria-label": "Select all that are shown",
      onchange: () => this.#selectAll(),
    });
    const head = COLUMNS.map(([name, kind, title]) => element("th", { class: kind, scope: "col", title }, name));
    this.body = element("tbody", { onkeydown: (event) => this.#key(event) });
    this.table = element(
      "table",
      { class: "sessions of-one" },
      element(
        "caption",
        { class: "visually-hidden" },
        "Sessions. Arrow keys move through the rows, Enter opens, Space selects.",
      ),
      element("thead", {}, element("tr", {}, element("th", { class: "check", scope: "col" }, this.all), head)),
      this.body,
    );
    this.element = element("div", { class: "table-scroll" }, this.table);
  }

  get size() {
    return this.#rows.length;
  }

  /** Shows placeholder rows while loading, so that the page does not jump; rows already shown stay. */
  wait() {
    if (this.#rows.length || this.body.childElementCount) return;
    const cell = () => element("td", {}, element("span", { class: "skeleton" }, "\u00a0"));
    const row = () => element("tr", { "aria-hidden": "true" }, element("td", { class: "check" }), COLUMNS.map(cell));
    this.body.replaceChildren(...Array.from({ length: WAITING_ROWS }, row));
  }

  clear() {
    this.#rows = [];
    this.#current = 0;
    this.body.replaceChildren();
    this.#changed();
  }

  /** models: every served version; the first of each name takes new sessions. named: show the model of each session. */
  add(sessions, models, { named }) {
    this.table.classList.toggle("of-one", !named);
    for (const info of sessions) {
      const made = this.#row(info, versionsOf(models, info.model));
      this.#rows.push(made);
      this.body.append(made.row);
    }
    this.#mark(this.#current);
    this.#changed();
  }

  focus() {
    this.#rows[this.#current]?.link.focus();
  }

  #row(info, versions) {
    const check = element("input", {
      type: "checkbox",
      "aria-label": `Select ${readable(info.session)}`,
      tabindex: -1,
      onchange: () => this.#changed(),
    });
    const link = element(
      "a",
      { href: sessionHash(info.model, info.session), title: readable(info.session), tabindex: -1 },
      readable(info.session),
    );
    const index = this.#rows.length;
    link.addEventListener("focus", () => this.#mark(index));
    const cells = info.damage
      ? [
          element(
            "td",
            { colspan: COLUMNS.length - 1 },
            element("span", { class: "badge bad", title: info.damage }, "damaged record"),
          ),
        ]
      : [
          element("td", { class: "model" }, info.model),
          element("td", {}, version(info.fingerprint, versions)),
          element("td", { class: "number" }, integer(info.position.step)),
          element("td", { class: "number optional" }, duration(info.age_ms)),
          element("td", { class: "number" }, duration(info.idle_ms)),
          element("td", { class: "number optional" }, expires(info)),
          element(
            "td",
            { class: "optional" },
            info.hot ? element("span", { class: "badge good" }, "hot") : element("span", { class: "muted" }, "stored"),
          ),
        ];
    const row = element(
      "tr",
      {},
      element("td", { class: "check" }, check),
      element("th", { class: "id", scope: "row" }, link),
      cells,
    );
    return { info, row, link, check };
  }

  #selectAll() {
    for (const { check } of this.#rows) check.checked = this.all.checked;
    this.#changed();
  }

  #changed() {
    const selected = this.#rows.filter(({ check }) => check.checked);
    this.all.checked = selected.length > 0 && selected.length === this.#rows.length;
    this.all.indeterminate = selected.length > 0 && !this.all.checked;
    this.all.disabled = !this.#rows.length;
    this.on.selected(selected.map(({ info }) => info));
  }

  /** Makes one row reachable by the Tab key; arrow keys choose which. */
  #mark(index) {
    this.#current = index;
    this.#rows.forEach(({ row, link, check }, i) => {
      const here = i === index;
      link.tabIndex = here ? 0 : -1;
      check.tabIndex = here ? 0 : -1;
      row.toggleAttribute("data-current", here && row.contains(document.activeElement));
    });
  }

  #key(event) {
    if (event.key === " " && event.target.tagName === "A") {
      event.preventDefault();
      const { check } = this.#rows[this.#current];
      check.checked = !check.checked;
      this.#changed();
      return;
    }
    const there = { ArrowDown: this.#current + 1, ArrowUp: this.#current - 1, Home: 0, End: this.#rows.length - 1 }[
      event.key
    ];
    if (there === undefined) return;
    event.preventDefault();
    if (there < 0) this.on.up();
    else this.#rows[Math.min(there, this.#rows.length - 1)]?.link.focus();
  }
}

function version(fingerprint, versions) {
  const at = versions.findIndex((model) => model.fingerprint === fingerprint);
  const text = element("span", { class: "mono", title: fingerprint }, short(fingerprint));
  if (at === 0) return text;
  const badge =
    at > 0 ? element("span", { class: "badge" }, "replaced") : element("span", { class: "badge warn" }, "not served");
  return [text, " ", badge];
}

function expires({ ttl_ms: ttl, idle_ms: idle }) {
  if (!Number(ttl)) return element("span", { class: "muted" }, "never");
  return `in ${duration(Math.max(0, Number(ttl) - Number(idle)))}`;
}

import { element, put, svg } from "../element.js";
import { integer, number } from "../format.js";
import { clockTicks, extent, linear, ticks } from "./axis.js";
import { Legend } from "./legend.js";

/** Lines over steps or time, in SVG. The legend shows the values under the cursor, which arrow keys move too. */

const LEFT = 52;
const RIGHT = 12;
const TOP = 8;
const BOTTOM = 22;
const WIDTH = 640; // until the element is laid out
const COLORS = 6;

export class LineChart {
  #data = { series: [] };
  #width = WIDTH;
  #cursor = null; // an x value; null: the latest

  /**
   * label: what the chart shows, for screen readers and the cursor. formatX, formatY: format values as text. floor: a
   * value that the y axis always includes. clock: x is a time of day, in seconds. joined: neighbours are joined by a
   * line up to this distance along x.
   */
  constructor({
    label,
    height = 150,
    formatX = integer,
    formatY = number,
    floor = null,
    clock = false,
    joined = Infinity,
    shown = 6,
  }) {
    Object.assign(this, { label, height, formatX, formatY, floor, clock, joined });
    this.svg = svg("svg", { "aria-hidden": "true", height });
    this.slider = element("div", {
      class: "chart-cursor",
      role: "slider",
      tabindex: 0,
      "aria-label": `${label}: cursor`,
      "aria-valuenow": 0,
      onpointermove: (event) => this.#point(event),
      onpointerleave: () => this.#moveTo(null),
      onkeydown: (event) => this.#key(event),
      onblur: () => this.#moveTo(null),
    });
    this.legend = new Legend(() => this.#draw(), { shown, formatY });
    this.body = element("div", { class: "chart" }, this.svg, this.slider);
    this.element = element("figure", { class: "stack-tight", "aria-label": label }, this.legend.element, this.body);
    this.resized = new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width > 0 && width !== this.#width) {
        this.#width = width;
        this.#draw();
      }
    });
    this.resized.observe(this.body);
  }

  /**
   * data: { series: [{ name, points: [[x, y], ...], ahead: [[x, y], ...], color }], x: [from, to] or undefined,
   * y: likewise, now: x or undefined, differs: x or undefined }. `ahead` is dashed, because it has not happened yet.
   */
  update(data) {
    this.#data = data;
    this.legend.name(data.series.map(({ name, color }, i) => ({ name, color: (color ?? i) % COLORS })));
    this.#draw();
  }

  close() {
    this.resized.disconnect();
  }

  #shown() {
    return this.#data.series
      .map((each, i) => ({ ...each, color: (each.color ?? i) % COLORS }))
      .filter((_, i) => this.legend.shows(i));
  }

  #draw() {
    const lines = this.#shown();
    const points = lines.flatMap(({ points, ahead = [] }) => [...points, ...ahead]);
    const domain = this.#data.x ?? spread(points.map(([x]) => x));
    const range =
      this.#data.y ??
      extent(
        points.map(([, y]) => y),
        this.floor,
      );
    const x = linear(domain, [LEFT, this.#width - RIGHT]);
    const y = linear(range, [this.height - BOTTOM, TOP]);
    this.scaled = { domain, x };
    this.svg.setAttribute("viewBox", `0 0 ${this.#width} ${this.height}`);
    put(
      this.svg,
      this.#ahead(domain, x),
      this.#grid(domain, range, x, y),
      lines.map((line) => drawn(line, x, y, this.joined)),
      this.#marks(x),
    );
    this.#read();
  }

  #grid(domain, range, x, y) {
    const right = this.#width - RIGHT;
    const across = ticks(...range, 4).flatMap((value) => [
      svg("line", { class: "grid", x1: LEFT, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { x: LEFT - 8, y: y(value) + 4, "text-anchor": "end" }, this.formatY(value)),
    ]);
    const many = Math.max(2, Math.floor((right - LEFT) / 110));
    const at = this.clock ? clockTicks(...domain, many) : ticks(...domain, many, true);
    const along = at.map((value) =>
      svg("text", { x: x(value), y: this.height - 6, "text-anchor": anchor(x(value), right) }, this.formatX(value)),
    );
    return [...across, ...along];
  }

  #ahead(domain, x) {
    const { now } = this.#data;
    if (now === undefined || now >= domain[1] || now < domain[0]) return [];
    const width = this.#width - RIGHT - x(now);
    return [svg("rect", { class: "ahead-area", x: x(now), y: TOP, width, height: this.height - TOP - BOTTOM })];
  }

  #marks(x) {
    const { now, differs } = this.#data;
    const line = (name, at) => svg("line", { class: name, x1: x(at), x2: x(at), y1: TOP, y2: this.height - BOTTOM });
    const within = (at) =>
      at !== undefined && at !== null && at >= this.scaled.domain[0] && at <= this.scaled.domain[1];
    return [
      within(now) && now < this.scaled.domain[1] && line("now", now),
      within(differs) && line("differs", differs),
      within(this.#cursor) && line("cursor", this.#cursor),
    ].filter(Boolean);
  }

  #read() {
    const at = this.#cursor;
    const values = this.#data.series.map(({ points, ahead = [] }) => {
      if (at === null) return (points.at(-1) ?? ahead[0])?.[1];
      return [...points, ...ahead].find(([x]) => x === at)?.[1];
    });
    this.legend.read(values, at === null ? "" : this.formatX(at));
    const [from, to] = this.scaled.domain;
    const position = at ?? to;
    this.slider.setAttribute("aria-valuemin", from);
    this.slider.setAttribute("aria-valuemax", to);
    this.slider.setAttribute("aria-valuenow", position);
    this.slider.setAttribute("aria-valuetext", this.legend.text(at === null ? "latest" : this.formatX(at)));
  }

  #xs() {
    const all = this.#data.series.flatMap(({ points, ahead = [] }) => [...points, ...ahead].map(([x]) => x));
    return [...new Set(all)].sort((a, b) => a - b);
  }

  #moveTo(at) {
    if (at === this.#cursor) return;
    this.#cursor = at;
    this.#draw();
  }

  #point(event) {
    const { left } = this.slider.getBoundingClientRect();
    const at = event.clientX - left;
    const near = this.#xs().reduce(
      (best, each) =>
        best === null || Math.abs(this.scaled.x(each) - at) < Math.abs(this.scaled.x(best) - at) ? each : best,
      null,
    );
    this.#moveTo(near);
  }

  #key(event) {
    const xs = this.#xs();
    const here = this.#cursor === null ? xs.length - 1 : xs.indexOf(this.#cursor);
    const there = { ArrowLeft: here - 1, ArrowRight: here + 1, Home: 0, End: xs.length - 1 }[event.key];
    if (there === undefined || !xs.length) return;
    event.preventDefault();
    this.#moveTo(xs[Math.max(0, Math.min(there, xs.length - 1))]);
  }
}

function spread(xs) {
  if (!xs.length) return [0, 1];
  const [from, to] = [Math.min(...xs), Math.max(...xs)];
  return from === to ? [from - 1, to + 1] : [from, to];
}

function anchor(at, right) {
  return at > right - 24 ? "end" : at < LEFT + 12 ? "start" : "middle";
}

/** Draws a line with gaps where values are NaN or missing; a single point is a dot. */
function drawn({ points, ahead = [], color }, x, y, most) {
  const joined = ahead.length && points.length ? [points.at(-1), ...ahead] : ahead;
  const made = [];
  if (points.length) made.push(svg("path", { class: `series stroke-${color}`, d: path(points, x, y, most) }));
  if (joined.length) made.push(svg("path", { class: `series ahead stroke-${color}`, d: path(joined, x, y, most) }));
  const last = points.at(-1);
  if (last && Number.isFinite(last[1])) {
    made.push(svg("circle", { class: `dot fill-${color}`, cx: x(last[0]), cy: y(last[1]), r: 3 }));
  }
  return made;
}

function path(points, x, y, most) {
  let text = "";
  let before = null; // x of the previous point, if it has a value
  for (const [at, value] of points) {
    if (!Number.isFinite(value)) {
      before = null;
    } else {
      const move = before === null || at - before > most;
      text += `${move ? "M" : "L"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
      before = at;
    }
  }
  return text || "M0 0";
}

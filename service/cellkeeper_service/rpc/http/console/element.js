/**
 * Builds elements: element("button", { class: "button", type: "button", onclick: save }, "Save").
 *
 * Attributes that are null, undefined or false are omitted; true becomes an empty attribute; names that begin with "on"
 * become listeners. Children are nodes or texts; null and false are omitted. Text is never parsed as markup.
 */
export function element(tag, attributes = {}, ...children) {
  return furnished(document.createElement(tag), attributes, children);
}

const SVG = "http://www.w3.org/2000/svg";

/** Builds SVG elements in the same way: svg("path", { d: "M0 0" }). */
export function svg(tag, attributes = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), attributes, children);
}

function furnished(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/**
 * A view: a row with a heading and, around it, crumbs (links and texts that lead to it), `beside`, `below` and `end`;
 * then the body.
 */
export function page(title, { crumbs = [], beside = [], below = [], end = [] } = {}, ...body) {
  const heading = element("h1", { tabindex: -1 }, title);
  const head = element(
    "div",
    {},
    crumbs.length > 0 && element("nav", { class: "crumbs", "aria-label": "Where this is" }, crumbs),
    [beside].flat().length ? element("div", { class: "row" }, heading, beside) : heading,
    below,
  );
  return element("div", { class: "page" }, element("div", { class: "page-head" }, head, end), body);
}

/** A card with a heading; `end` is at the right of the heading. */
export function card(title, { end = [], id = null } = {}, ...body) {
  const heading = element("h2", { id }, title);
  return element(
    "section",
    { class: "card", "aria-label": title },
    element("div", { class: "card-head" }, heading, element("div", { class: "row" }, end)),
    element("div", { class: "card-body" }, body),
  );
}

/** A list of names and values: facts([["step", "12"], ...]). Entries whose value is null are omitted. */
export function facts(entries) {
  const shown = entries.filter(([, value]) => value !== null && value !== undefined);
  return element(
    "dl",
    { class: "facts" },
    shown.map(([name, value, title]) => [element("dt", { title }, name), element("dd", {}, value)]),
  );
}

/** A placeholder for an empty view: a headline, and what to do, as texts or elements. */
export function empty(headline, ...advice) {
  return element(
    "div",
    { class: "empty" },
    element("p", { class: "headline" }, headline),
    advice.map((each) => (typeof each === "string" ? element("p", { class: "muted" }, each) : each)),
  );
}

/** An error with the server's text, its reason, and what to do about it. */
export function problem(error) {
  return element(
    "div",
    { class: "problem", role: "alert" },
    element("p", {}, error.message),
    error.reason && element("p", { class: "reason" }, error.reason),
    error.advice && element("p", { class: "muted small" }, error.advice),
  );
}

/** Replaces the children of `parent`; does not touch it if they are the same already. */
export function put(parent, ...children) {
  const wanted = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  const same = wanted.length === parent.childNodes.length && wanted.every((child, i) => child === parent.childNodes[i]);
  if (!same) parent.replaceChildren(...wanted);
  return parent;
}

/**
 * Parses the address of a view. It is in the part of the URL after "#", so that every view can be linked:
 *
 *   #/sessions?prefix=PREFIX                         of all models
 *   #/models                                         #/models/MODEL
 *   #/models/MODEL/sessions?prefix=PREFIX
 *   #/models/MODEL/sessions/SESSION
 *   #/models/MODEL/sessions/SESSION/compare/OTHER
 *   #/now
 */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?");
  let parts;
  try {
    parts = path.split("/").slice(1).map(decodeURIComponent);
  } catch {
    return { view: "unknown", path };
  }
  const prefix = new URLSearchParams(query).get("prefix") ?? "";
  const [first, model, second, session, third, other] = parts;
  if (!first || (first === "sessions" && parts.length === 1)) return { view: "sessions", model: null, prefix };
  if (first === "now" && parts.length === 1) return { view: "now" };
  if (first !== "models") return { view: "unknown", path };
  if (parts.length === 1) return { view: "models", model: null };
  if (parts.length === 2) return { view: "models", model };
  if (second !== "sessions") return { view: "unknown", path };
  if (parts.length === 3) return { view: "sessions", model, prefix: prefix };
  if (parts.length === 4) return { view: "session", model, session };
  if (third === "compare" && parts.length === 6) return { view: "compare", model, session, other };
  return { view: "unknown", path };
}

/** Goes to another view, unless the user has left the one of `from` (location.hash) while it waited for an answer. */
export function goOn(from, hash) {
  if (location.hash === from) location.hash = hash;
}

export function modelHash(model) {
  return `#/models/${encodeURIComponent(model)}`;
}

/** model: null for all models. */
export function sessionsHash(model, prefix = "") {
  const query = prefix ? `?${new URLSearchParams({ prefix })}` : "";
  return `${model === null ? "#" : modelHash(model)}/sessions${query}`;
}

export function sessionHash(model, session) {
  return `${modelHash(model)}/sessions/${encodeURIComponent(session)}`;
}

export function compareHash(model, session, other) {
  return `${sessionHash(model, session)}/compare/${encodeURIComponent(other)}`;
}

/**
 * Addresses of views, kept in the part of the URL behind "#", so that every view can be linked:
 *
 *   #/sessions                                       of the only model, or of one to choose
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
  const parameters = new URLSearchParams(query);
  const [first, model, second, session, third, other] = parts;
  if (!first || (first === "sessions" && parts.length === 1)) return { view: "sessions", model: null, prefix: "" };
  if (first === "now" && parts.length === 1) return { view: "now" };
  if (first !== "models") return { view: "unknown", path };
  if (parts.length === 1) return { view: "models", model: null };
  if (parts.length === 2) return { view: "models", model };
  if (second !== "sessions") return { view: "unknown", path };
  if (parts.length === 3) return { view: "sessions", model, prefix: parameters.get("prefix") ?? "" };
  if (parts.length === 4) return { view: "session", model, session };
  if (third === "compare" && parts.length === 6) return { view: "compare", model, session, other };
  return { view: "unknown", path };
}

export function modelHash(model) {
  return `#/models/${encodeURIComponent(model)}`;
}

export function sessionsHash(model, prefix = "") {
  const query = prefix ? `?${new URLSearchParams({ prefix })}` : "";
  return `${modelHash(model)}/sessions${query}`;
}

export function sessionHash(model, session) {
  return `${modelHash(model)}/sessions/${encodeURIComponent(session)}`;
}

export function compareHash(model, session, other) {
  return `${sessionHash(model, session)}/compare/${encodeURIComponent(other)}`;
}

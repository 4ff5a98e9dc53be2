/** Calls of the JSON API. A failure is an ApiError with the server's text, or Unreachable if there was no answer. */

/** The server refused a request. code, reason and message are the server's; details may hold the record's position. */
export class ApiError extends Error {
  constructor(status, { code = "", reason = "", message = "", details = {} } = {}) {
    super(message || `The server answered with status ${status}.`);
    this.status = status;
    this.code = code;
    this.reason = reason;
    this.details = details ?? {};
    this.advice = ADVICE[reason] ?? ADVICE[code] ?? "";
  }
}

/** There was no answer: the server or the network is down. */
export class Unreachable extends Error {
  constructor() {
    super("The server does not answer.");
    this.advice = "The console keeps trying, and continues when the server is back.";
  }
}

const ADVICE = {
  SESSION_NOT_FOUND: "It expired, was deleted, or was never opened. Look for it in the list of sessions.",
  GENERATION_CHANGED: "The session was reset or recreated meanwhile. Reload it before changing it.",
  MODEL_CHANGED: "Its version of the model is not served. Carry the session over in the Models view.",
  NUMERICS_CHANGED: "Another engine computed this session. Serve it with that engine, or reset it.",
  STEP_GAP: "The session is at an earlier step. Reload it.",
  STEP_COMPACTED: "The log no longer has that step.",
  HISTORY_CHANGED: "Another client stepped the session with other inputs. Reload it.",
  STEP_CONFLICT: "Another client stepped the session meanwhile. Reload it.",
  SESSION_EXISTS: "Choose another name, or delete that session first.",
  QUEUE_FULL: "The server is busy. Try again in a moment.",
  QUOTA_EXCEEDED: "The tenant's quota is used up. Try again later, or ask for a larger quota.",
  STORE_UNAVAILABLE: "The store does not answer. The server and the console keep trying.",
  DRAINING: "The server is shutting down. The console continues when another one answers.",
  PERMISSION_DENIED: "The token lacks the right for this. Use another token.",
  UNAUTHENTICATED: "Enter a token that this server knows.",
  DATA_LOSS: "The record is damaged. Reset or delete the session, or restore the store.",
  NON_FINITE_INPUT: "The model accepts only finite values.",
};

const TIMEOUT_MS = 20_000;

export class Api {
  /**
   * token: an object whose `value` is the token or "". connection: is told of every answer and of every silence.
   * onUnauthenticated: called when a token is missing or wrong; resolves to true if the call should be retried.
   */
  constructor({ token, connection, onUnauthenticated }) {
    this.token = token;
    this.connection = connection;
    this.onUnauthenticated = onUnauthenticated;
  }

  get(path, options) {
    return this.call("GET", path, undefined, options);
  }

  post(path, body, options) {
    return this.call("POST", path, body, options);
  }

  delete(path, options) {
    return this.call("DELETE", path, undefined, options);
  }

  /** Resolves to the body's JSON. signal: an AbortSignal that ends the call. */
  async call(method, path, body, { signal } = {}) {
    for (;;) {
      const used = this.token.value;
      const answer = await this.#send(method, path, body, used, signal);
      const content = await answer.json().catch(() => ({}));
      if (answer.ok) return content;
      const error = new ApiError(answer.status, content.error);
      if (answer.status !== 401 || !(await this.onUnauthenticated(error, used))) throw error;
    }
  }

  async #send(method, path, body, token, signal) {
    const headers = {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (token) headers.Authorization = `Bearer ${token}`;
    const limit = AbortSignal.timeout(TIMEOUT_MS);
    const ended = signal ? AbortSignal.any([signal, limit]) : limit;
    try {
      const text = body === undefined ? undefined : JSON.stringify(body);
      const answer = await fetch(path, { method, headers, body: text, signal: ended, cache: "no-store" });
      this.connection.answered();
      return answer;
    } catch (error) {
      if (signal?.aborted) throw error;
      this.connection.silent();
      throw new Unreachable();
    }
  }
}

/** Returns the API path of a model. */
export function modelPath(model) {
  return `/v1/models/${encodeURIComponent(model)}`;
}

/** Returns the API path of a session, or of a part of it: sessionPath("m", "pump 17", "step"). */
export function sessionPath(model, session, ...rest) {
  return [`${modelPath(model)}/sessions/${encodeURIComponent(session)}`, ...rest].join("/");
}

/** Returns 16 random bytes as hex: one id for all tries of one change. */
export function newRequestId() {
  const random = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

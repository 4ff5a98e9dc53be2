import { ApiError, sessionPath } from "./api.js";

/** Watches a session for a view: positions, states, new inputs and outputs, over a WebSocket. */

const FIRST_WAIT_MS = 300;
const LONGEST_WAIT_MS = 4000;
const REFUSED = 1008; // the close code for a caller who may not watch

/**
 * on: { message(object), status("live" | "waiting" | "ended"), error(ApiError) }. A lost socket is opened again, until
 * the caller is refused or `close` is called. A deleted session is still watched, because it may come back.
 */
export class Watch {
  #socket = null;
  #closed = false;
  #wait = FIRST_WAIT_MS;
  #timer = 0;

  /** output: name of the output to receive; empty: none. hz: updates a second, at most. */
  constructor({ model, session, token, connection, output, hz = 5 }, on) {
    this.on = on;
    this.token = token;
    this.connection = connection;
    const query = new URLSearchParams({ hz, outputs: output });
    this.url = new URL(`${sessionPath(model, session, "watch")}?${query}`, location.href);
    this.url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    this.#open();
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    if (socket.readyState === WebSocket.CONNECTING)
      socket.onopen = () => socket.close(); // closing it earlier is an error
    else socket.close();
  }

  /** Returns a message's error object as an ApiError. */
  errorOf(error) {
    return new ApiError(0, error);
  }

  #open() {
    this.on.status("waiting");
    const socket = new WebSocket(this.url, protocols(this.token.value));
    this.#socket = socket;
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    socket.onclose = ({ code }) => this.#lost(code);
  }

  #take(message) {
    if (this.#closed) return;
    this.#wait = FIRST_WAIT_MS;
    this.connection.answered();
    if (message.position) {
      this.on.status("live");
      this.on.message(message);
    } else {
      const error = this.errorOf(message.error);
      this.on.status(error.reason === "SESSION_NOT_FOUND" ? "ended" : "waiting");
      this.on.error(error);
    }
  }

  #lost(code) {
    if (this.#closed) return;
    if (code === REFUSED) {
      this.on.status("ended");
      return;
    }
    this.on.status("waiting");
    this.connection.check();
    this.#timer = setTimeout(() => this.#open(), this.#wait);
    this.#wait = Math.min(this.#wait * 1.6, LONGEST_WAIT_MS);
  }
}

/** A browser cannot set headers on a WebSocket, so the token is sent as a subprotocol. */
function protocols(token) {
  if (!token) return ["cellkeeper.v1"];
  const bytes = new TextEncoder().encode(token);
  const encoded = btoa(String.fromCharCode(...bytes));
  return [
    "cellkeeper.v1",
    `cellkeeper.bearer.${encoded.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`,
  ];
}

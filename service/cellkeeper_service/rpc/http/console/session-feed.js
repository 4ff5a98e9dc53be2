import { sessionPath } from "./api.js";
import { History } from "./history.js";
import { Watch } from "./watch.js";

/**
 * One session as a view sees it: what the server says about it, its history and its states; read once, then watched.
 *
 * Events: "loaded" (info and model are set), "change" (the watch sent an update; detail.reset: of another generation),
 * "status" (live, waiting or ended), "failed" (detail: the error; the session cannot be shown now).
 */
export class SessionFeed extends EventTarget {
  #calls = new AbortController();
  #watch = null;

  constructor(context, modelName, session) {
    super();
    Object.assign(this, { context, modelName, session });
    this.history = new History();
    this.status = "waiting";
    this.info = null;
    this.model = null; // null: the session's version is not served
    this.states = null;
    this.stepsProblem = null; // why the last steps or the state are missing while the rest is there
  }

  get path() {
    return sessionPath(this.modelName, this.session);
  }

  get position() {
    return this.info.position;
  }

  /** The session's step, on its history's axis. */
  get now() {
    return this.history.axis.at(this.info.position.step);
  }

  /** True once the watch has sent the last steps, or said why not. */
  get told() {
    return this.states !== null || this.stepsProblem !== null;
  }

  /** Reads everything, also when called again. */
  async load() {
    this.#watch?.close();
    const { signal } = this.#calls;
    try {
      this.info = await this.context.api.get(this.path, { signal });
      this.history.stand(this.info.position);
      this.model = await this.context.catalog.version(this.modelName, this.info.fingerprint);
      if (signal.aborted) return;
      this.#emit("loaded");
      this.#follow();
    } catch (error) {
      if (!signal.aborted) this.#emit("failed", error);
    }
  }

  close() {
    this.#calls.abort();
    this.#watch?.close();
  }

  #follow() {
    const { token, connection } = this.context;
    const output = this.model?.output ?? "";
    this.#watch = new Watch(
      { model: this.modelName, session: this.session, token, connection, output },
      {
        message: (message) => this.#take(message),
        status: (status) => {
          this.status = status;
          this.#emit("status");
        },
        error: (error) => this.#emit("failed", error),
      },
    );
  }

  #take({ states, inputs, outputs, first_step: first, error, ...info }) {
    if (info.fingerprint !== this.info.fingerprint) {
      this.load(); // carried over: another version may have other shapes
      return;
    }
    const reset = info.position.generation !== this.info.position.generation;
    this.info = { ...this.info, ...info };
    this.history.stand(info.position);
    this.stepsProblem = error ? this.#watch.errorOf(error) : null;
    if (states) this.states = states;
    if (inputs && this.model) {
      const taken = { position: info.position, first, inputs: this.model.steps(inputs), outputs };
      this.history.add(taken, this.model.output);
    }
    this.#emit("change", { reset });
  }

  #emit(name, detail = null) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

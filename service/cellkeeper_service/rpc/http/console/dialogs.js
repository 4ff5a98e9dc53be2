import { element, problem } from "./element.js";

/** Dialogs: a question with fields, or a confirmation. Esc closes them; focus returns to where it was. */

/**
 * Asks, then acts. fields: elements of the form, before the buttons. act(form): runs when the button is pressed; if it
 * throws, the error is shown and the dialog stays open. Resolves to the result of `act`, or to null if it was closed.
 */
export function ask({ title, text = [], fields = [], button, danger = false, act }) {
  return new Promise((resolve) => {
    let result = null;
    const problems = element("div", {});
    const submit = element("button", { class: `button ${danger ? "danger" : "primary"}`, type: "submit" }, button);
    const close = element("button", { class: "button", type: "button", onclick: () => dialog.close() }, "Cancel");
    const heading = element("h2", { id: `dialog-${crypto.randomUUID()}` }, title);
    const form = element(
      "form",
      { method: "dialog" },
      heading,
      [text].flat().map((part) => (typeof part === "string" ? element("p", {}, part) : part)),
      fields,
      problems,
      element("div", { class: "dialog-end" }, close, submit),
    );
    const dialog = element("dialog", { "aria-labelledby": heading.id }, form);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      submit.disabled = true;
      try {
        result = (await act(form, problems)) ?? true;
        dialog.close();
      } catch (error) {
        problems.replaceChildren(problem(error));
        submit.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector("input, textarea, select") ?? (danger ? close : submit)).focus();
  });
}

/** A field with its label: field("Name", { name: "target", value: "x" }). `hint` is shown below it. */
export function field(label, attributes, hint = null) {
  const id = `field-${crypto.randomUUID()}`;
  const hintId = hint && `${id}-hint`;
  return element(
    "div",
    { class: "field" },
    element("label", { for: id }, label),
    element("input", { id, autocomplete: "off", spellcheck: "false", "aria-describedby": hintId, ...attributes }),
    hint && element("p", { id: hintId, class: "muted small" }, hint),
  );
}

/** Shows a message for some seconds, also to screen readers. action: [label, function], for instance "Open". */
export function toast(text, action = null) {
  const SHOWN_MS = 8000;
  const close = () => shown.remove();
  const button =
    action &&
    element(
      "button",
      {
        class: "button quiet",
        type: "button",
        onclick: () => {
          close();
          action[1]();
        },
      },
      action[0],
    );
  const dismiss = element(
    "button",
    { class: "button quiet", type: "button", "aria-label": "Dismiss", onclick: close },
    "×",
  );
  const shown = element(
    "div",
    { class: "toast" },
    element("span", {}, text),
    element("span", { class: "row" }, button, dismiss),
  );
  document.getElementById("toasts").append(shown);
  announce(text);
  setTimeout(close, SHOWN_MS);
}

/** Announces text to screen readers only. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

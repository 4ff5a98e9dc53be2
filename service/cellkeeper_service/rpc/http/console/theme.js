/** Light or dark: as the system prefers, until the user chooses. The choice is stored in this browser. */

const KEY = "cellkeeper.theme";
const CHOICES = ["system", "light", "dark"];
const NAMES = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

/** Emits "change" when the colours change, for what draws with them. */
export class Theme extends EventTarget {
  #system = matchMedia("(prefers-color-scheme: dark)");

  constructor(button) {
    super();
    this.button = button;
    this.choice = CHOICES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system";
    this.#system.addEventListener("change", () => this.#apply());
    button.addEventListener("click", () => {
      this.choice = CHOICES[(CHOICES.indexOf(this.choice) + 1) % CHOICES.length];
      localStorage.setItem(KEY, this.choice);
      this.#apply();
    });
    this.#apply();
  }

  #apply() {
    const dark = this.choice === "dark" || (this.choice === "system" && this.#system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    this.button.textContent = NAMES[this.choice];
    this.dispatchEvent(new Event("change"));
  }
}

// The bar at the top: the product's name, the colours, the way out.

import { config } from "./config.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import { logOut, sessionToken } from "./session.js";

const THEMES = [["system", "As the system does"], ["light", "Light"], ["dark", "Dark"]];
const ITEM = "keyauth.theme";

/** Fill the bar; `onLogOut` once the session is forgotten. Gives {update()} for when a session came or went. */
export function fillBar(bar, onLogOut) {
  const name = [el("span", { class: "logo", "aria-hidden": "true" }, icon("key")), el("span", {}, config.product || "API keys")];
  const home = config.homePath ? el("a", { class: "product", href: config.homePath }, name) : el("span", { class: "product" }, name);
  const out = el("button", { type: "button", class: "button button-quiet" }, icon("exit"), el("span", { class: "wide-only" }, "Log out"));
  out.setAttribute("aria-label", "Log out");
  out.addEventListener("click", async () => {
    await logOut();
    onLogOut();
  });
  bar.append(home, el("div", { class: "bar-end" }, themeChoice(), out));
  return { update: () => (out.hidden = !sessionToken()) };
}

function themeChoice() {
  const button = el("button", { type: "button", class: "icon-button" });
  let at = Math.max(0, THEMES.findIndex(([name]) => name === (document.documentElement.dataset.theme ?? "system")));

  function show() {
    const [name, words] = THEMES[at];
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.replaceChildren(icon(name));
    button.setAttribute("aria-label", `Colours: ${words}`);
    button.title = `Colours: ${words}`;
  }

  button.addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    try {
      if (THEMES[at][0] === "system") localStorage.removeItem(ITEM);
      else localStorage.setItem(ITEM, THEMES[at][0]);
    } catch {
      // Then it holds for this page alone.
    }
    show();
  });
  show();
  return button;
}

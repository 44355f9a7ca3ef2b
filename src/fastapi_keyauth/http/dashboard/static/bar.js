// The bar at the top: the product's name, who is logged in, the colors, the way out.

import { config } from "./config.js";
import { el, written } from "./dom.js";
import { icon } from "./icons.js";
import { logOut, sessionToken } from "./session.js";

const THEMES = [["system", "As in the system"], ["light", "Light"], ["dark", "Dark"]];
const ITEM = "keyauth.theme";

/** Fill the bar; `onLogOut` once the session is forgotten. Gives {update(options)}; `options`: null without a session. */
export function fillBar(bar, onLogOut) {
  const name = [el("span", { class: "logo", "aria-hidden": "true" }, icon("key")), el("span", { class: "product-name" }, config.product || "API keys")];
  const home = config.homePath ? el("a", { class: "product", href: config.homePath }, name) : el("span", { class: "product" }, name);
  const user = el("span", { class: "user", hidden: true });
  const out = el("button", { type: "button", class: "button button-quiet" }, icon("exit"), el("span", { class: "wide-only" }, "Log out"));
  out.setAttribute("aria-label", "Log out");
  out.addEventListener("click", async () => {
    await logOut();
    onLogOut();
  });
  bar.append(home, el("div", { class: "bar-end" }, user, themeChoice(), out));
  return {
    update(options) {
      out.hidden = !sessionToken();
      user.hidden = !options;
      if (!options) return;
      user.title = `Logged in as ${options.user_id}`;
      user.replaceChildren(
        el("span", { class: "hidden-text" }, "Logged in as "),
        written(options.user_id),
        ...(options.is_admin ? [el("span", { class: "tag" }, "Admin")] : []),
      );
    },
  };
}

function themeChoice() {
  const button = el("button", { type: "button", class: "icon-button" });
  let at = Math.max(0, THEMES.findIndex(([name]) => name === (document.documentElement.dataset.theme ?? "system")));

  function show() {
    const [name, words] = THEMES[at];
    if (name === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = name;
    button.replaceChildren(icon(name));
    button.setAttribute("aria-label", `Colors: ${words}`);
    button.title = `Colors: ${words}`;
  }

  button.addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    try {
      if (THEMES[at][0] === "system") localStorage.removeItem(ITEM);
      else localStorage.setItem(ITEM, THEMES[at][0]);
    } catch {
      // Then the choice holds for this page alone.
    }
    show();
  });
  show();
  return button;
}

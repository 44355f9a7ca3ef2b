// Below the list: how many keys it shows, and buttons for more of them.

import { el } from "./dom.js";

/** `grow(isAll)` adds rows. Gives {node, say(text), offer(hasMore), hasMore()}. */
export function listFoot(grow) {
  const result = el("p", { class: "result-line", role: "status" });
  const more = el("button", { type: "button", class: "button", on: { click: () => grow(false) } }, "Load more");
  const all = el("button", { type: "button", class: "button", on: { click: () => grow(true) } }, "Load all");
  const buttons = el("div", { class: "buttons", hidden: true }, more, all);
  return {
    node: el("div", { class: "table-foot" }, result, buttons),
    say: (text) => (result.textContent = text),
    offer: (hasMore) => (buttons.hidden = !hasMore),
    hasMore: () => !buttons.hidden,
  };
}

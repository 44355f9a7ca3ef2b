// What a link has narrowed a view down to, and the way back.

import { el, written } from "./dom.js";
import { icon } from "./icons.js";

/** Gives {node, show(before, words)}: "Only worker", with a cross; `onRemove` for a press. Without words it is hidden. */
export function chip(onRemove) {
  const text = el("span");
  const node = el("button", { type: "button", class: "chip", hidden: true, on: { click: onRemove } }, text, icon("close"));
  return {
    node,
    show(before, words) {
      node.hidden = !words;
      text.replaceChildren(before, " ", written(words, { class: "strong" }));
      node.setAttribute("aria-label", `${before} ${words}: remove this filter`);
    },
  };
}

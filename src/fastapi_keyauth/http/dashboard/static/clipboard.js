// Buttons that copy a text, and say that they did.

import { el } from "./dom.js";
import { icon } from "./icons.js";

const SAYS_SO_MS = 2500;

/** `read` gives the text when the button is pressed; `shown` is the element that shows it. */
export function copyButton(label, read, shown, kind = "") {
  const word = el("span", {}, label);
  return withFeedback(el("button", { type: "button", class: `button copy ${kind}` }, icon("copy"), word), label, read, shown, word);
}

/** A small button beside a short public text such as an id. */
export function copyIcon(label, text) {
  const shown = el("span", { class: "hidden-text", "aria-hidden": "true" }, text);
  const button = el("button", { type: "button", class: "icon-button copy-icon", "aria-label": label, title: label }, icon("copy"));
  return [...withFeedback(button, label, () => text, shown), shown];
}

function withFeedback(button, label, read, shown, word) {
  const spoken = el("span", { class: "hidden-text", role: "status" });
  button.addEventListener("click", async () => {
    const copied = await copy(read(), shown);
    if (word) word.textContent = copied ? "Copied" : "Press Ctrl+C";
    spoken.textContent = copied ? `Copied: ${label.replace(/^Copy /, "")}` : "It is selected. Press Ctrl and C.";
    if (copied) button.querySelector(".icon").replaceWith(icon("check"));
    button.classList.toggle("is-done", copied);
    setTimeout(() => {
      if (word) word.textContent = label;
      spoken.textContent = "";
      button.querySelector(".icon").replaceWith(icon("copy"));
      button.classList.remove("is-done");
    }, SAYS_SO_MS);
  });
  return [button, spoken];
}

/** Copy a text. Says whether that worked; if not, it is selected, so that the keyboard can copy it. */
export async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Plain http, or not allowed.
    if (!shown) return false;
    getSelection().selectAllChildren(shown);
    return document.execCommand("copy");
  }
}

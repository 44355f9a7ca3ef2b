// A button that copies a text, and says that it did.

import { el } from "./dom.js";
import { icon } from "./icons.js";

const SAYS_SO_MS = 2500;

/** `read` gives the text when the button is pressed; `shown` is the element that shows it. */
export function copyButton(label, read, shown) {
  const word = el("span", {}, "Copy");
  const button = el("button", { type: "button", class: "button copy", "aria-label": `Copy ${label}` }, icon("copy"), word);
  const spoken = el("span", { class: "hidden-text", role: "status" });
  button.addEventListener("click", async () => {
    const copied = await copy(read(), shown);
    word.textContent = copied ? "Copied" : "Press Ctrl+C";
    spoken.textContent = copied ? `Copied ${label}` : "It is selected: press Ctrl and C";
    button.classList.toggle("is-done", copied);
    setTimeout(() => {
      word.textContent = "Copy";
      spoken.textContent = "";
      button.classList.remove("is-done");
    }, SAYS_SO_MS);
  });
  return [button, spoken];
}

async function copy(text, shown) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Plain http, or not allowed: select it, so that the keyboard can copy it.
    getSelection().selectAllChildren(shown);
    return document.execCommand("copy");
  }
}

// The one time that a token is shown. When the dialog closes, no element and no variable of the page holds it.

import { exampleUrl } from "../api.js";
import { copyButton } from "../clipboard.js";
import { el, written } from "../dom.js";
import { icon } from "../icons.js";
import { openDialog, submitButton } from "./dialog.js";

/** Show it. `warning`: one more sentence; `onClose`: afterwards. */
export function showToken({ key, token, headerName, isRotation = false, warning, onClose }) {
  let held = token;
  const line = () => `curl ${shellQuote(exampleUrl())} -H ${shellQuote(`${headerName}: ${held}`)}`;
  const tokenNode = el("code", { class: "token", tabindex: "0", "aria-label": "API key" }, held);
  const curlNode = el("code", { class: "curl", tabindex: "0", "aria-label": "curl command" }, line());

  const wipe = () => {
    held = "";
    tokenNode.replaceChildren();
    curlNode.replaceChildren();
  };
  const leave = () => {
    // Now, and not when "close" is told: that comes a moment later, and the page may be put away before.
    wipe();
    dialog.close();
  };
  // A page that the browser keeps for its Back button would keep the token, too.
  addEventListener("pagehide", leave);

  const dialog = openDialog({
    title: isRotation ? "Copy the new key now" : "Copy your key now",
    mustAnswer: true,
    isWide: true,
    content: [
      el(
        "div",
        { class: "notice notice-warn" },
        icon("alert"),
        el("p", {}, "This is the only time ", written(key.name, { class: "strong" }), " is shown. We keep a hash of it, so nobody can show it again."),
      ),
      warning && el("div", { class: "notice notice-bad" }, icon("alert"), el("p", {}, warning)),
      el("div", { class: "copy-row" }, tokenNode, copyButton("the key", () => held, tokenNode)),
      el("h3", {}, "Try it"),
      el("div", { class: "copy-row" }, curlNode, copyButton("the command", line, curlNode)),
      el("p", { class: "hint" }, "Keep it in a secret manager or an environment variable, never in code or in a ticket."),
    ],
    buttons: [submitButton("I have saved it")],
    onSubmit: leave,
    onClose: () => {
      wipe();
      removeEventListener("pagehide", leave);
      onClose?.();
    },
  });
}

/** One word for a shell, whatever is in it. */
function shellQuote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

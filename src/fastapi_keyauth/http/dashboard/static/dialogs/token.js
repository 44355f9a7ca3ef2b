// The one time that a token is shown. When the dialog closes, no element and no variable of the page holds it.

import { exampleUrl } from "../api.js";
import { copyButton } from "../clipboard.js";
import { el, written } from "../dom.js";
import { icon } from "../icons.js";
import { openDialog } from "./dialog.js";

/** Show it. `warning`: one more sentence; `onClose`: afterwards. */
export function showToken({ key, token, headerName, isRotation = false, warning, onClose }) {
  let held = token;
  const line = () => `curl ${shellQuote(exampleUrl())} -H ${shellQuote(`${headerName}: ${held}`)}`;
  const tokenNode = el("code", { class: "token", tabindex: "0", "aria-label": "API key" }, held);
  const curlNode = el("code", { class: "curl", tabindex: "0", "aria-label": "curl command" }, line());
  const copyToken = copyButton("Copy key", () => held, tokenNode, "button-primary");

  const wipe = () => {
    held = "";
    tokenNode.replaceChildren();
    curlNode.replaceChildren();
  };
  const leave = () => {
    // Now, and not at the event "close", which comes a moment later: the page may be stored before.
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
        el("p", {}, "This is the only time ", written(key.name, { class: "strong" }), " is shown. Only a hash of it is stored, so nobody can show it again."),
      ),
      warning && el("div", { class: "notice notice-bad" }, icon("alert"), el("p", {}, warning)),
      el("div", { class: "copy-row copy-main" }, tokenNode, copyToken),
      el("p", { class: "hint" }, "Keep it in a secret manager or an environment variable, never in code or in a ticket."),
      el("h3", {}, "Try it"),
      el("div", { class: "copy-row" }, curlNode, copyButton("Copy command", line, curlNode, "button-quiet")),
    ],
    // Not the form's own button, and not the one that stands out: Enter copies and closes nothing.
    buttons: [el("button", { type: "button", class: "button", on: { click: leave } }, "I have saved it")],
    onClose: () => {
      wipe();
      removeEventListener("pagehide", leave);
      onClose?.();
    },
  });
  copyToken[0].focus();
}

/** One word for a shell, whatever is in it. */
function shellQuote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

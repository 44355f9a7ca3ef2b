// Short messages at the edge of the page, read out by screen readers and removed after a while.

import { el } from "./dom.js";
import { icon } from "./icons.js";

const STAYS_MS = 7000;

/** Say what happened; `kind` is "good", "warn" or "bad". */
export function say(text, kind = "good") {
  const close = el("button", { type: "button", class: "icon-button", "aria-label": "Close this message" }, icon("close"));
  const message = el(
    "div",
    { class: `message message-${kind}` },
    icon(kind === "good" ? "check" : "alert"),
    el("p", {}, text),
    close,
  );
  const remove = () => message.remove();
  close.addEventListener("click", remove);
  const area = document.getElementById("messages");
  // A dialog makes everything outside it unreachable: the message goes inside, where it is seen and heard.
  const dialogs = document.querySelectorAll("dialog[open]");
  if (dialogs.length) {
    const inside = dialogs[dialogs.length - 1].querySelector(".dialog-messages");
    inside?.append(message);
  } else {
    area.append(message);
  }
  setTimeout(remove, STAYS_MS);
}

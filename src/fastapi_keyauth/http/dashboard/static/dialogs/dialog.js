// The frame of every dialog: the browser's own <dialog>, which keeps the focus inside and gives it back.

import { el, newId } from "../dom.js";
import { icon } from "../icons.js";

const opened = new Set();

/**
 * Open a dialog. Gives {node, close()}.
 * `content` and `buttons` are nodes; `mustAnswer`: only a button of its own closes it; `onClose` is called once.
 */
export function openDialog({ title, content, buttons, mustAnswer = false, isWide = false, onClose, onSubmit }) {
  const titleId = newId("title");
  const heading = el("h2", { id: titleId, tabindex: "-1" }, title);
  const closeButton = !mustAnswer && el("button", { type: "button", class: "icon-button", "aria-label": "Close", on: { click: () => node.close() } }, icon("close"));
  const form = el(
    "form",
    { class: "dialog-form", novalidate: true, on: { submit: (event) => { event.preventDefault(); onSubmit?.(); } } },
    el("div", { class: "dialog-head" }, heading, closeButton),
    el("div", { class: "dialog-body" }, content),
    el("div", { class: "dialog-messages", role: "status", "aria-live": "polite" }),
    el("div", { class: "dialog-foot" }, buttons),
  );
  const node = el("dialog", { class: isWide ? "dialog is-wide" : "dialog", "aria-labelledby": titleId }, form);
  const dialog = { node, mustAnswer, close: () => node.close() };
  if (mustAnswer) {
    // Escape must not throw away what is shown only once; some browsers close at the second press all the same.
    node.setAttribute("closedby", "none");
    node.addEventListener("keydown", (event) => event.key === "Escape" && event.preventDefault());
    node.addEventListener("cancel", (event) => event.preventDefault());
  }
  node.addEventListener("close", () => {
    opened.delete(dialog);
    node.remove();
    onClose?.();
  });
  document.body.append(node);
  opened.add(dialog);
  node.showModal();
  return dialog;
}

/** Close what is open, except what the user must answer. */
export function closeDialogs() {
  for (const dialog of [...opened]) if (!dialog.mustAnswer) dialog.close();
}

/** A button that closes the dialog it stands in. */
export function cancelButton(text = "Cancel") {
  return el("button", { type: "button", class: "button", on: { click: (event) => event.target.closest("dialog").close() } }, text);
}

/** The button that does it. */
export function submitButton(text, kind = "primary") {
  return el("button", { type: "submit", class: `button button-${kind}` }, text);
}

/** Run something with the button switched off, so that a second press does nothing. */
export async function whileBusy(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  // Not `disabled`: a disabled button loses the focus, and with it the keyboard's place.
  button.setAttribute("aria-disabled", "true");
  button.classList.add("is-busy");
  try {
    await work();
  } finally {
    button.removeAttribute("aria-disabled");
    button.classList.remove("is-busy");
  }
}

// The frame of every dialog: the browser's own <dialog>, which keeps the focus inside and gives it back.

import { el, newId } from "../dom.js";
import { icon } from "../icons.js";

const opened = new Set();

/**
 * Open a dialog. Gives {node, close()}.
 * `content` and `buttons` are nodes. `mustAnswer`: only a button of its own closes it. `isDirty()`: whether something was
 * typed, which closing would discard. `onClose` is called once, `onSubmit` for the form.
 */
export function openDialog({ title, content, buttons, mustAnswer = false, isWide = false, isDirty = () => false, onClose, onSubmit }) {
  const titleId = newId("title");
  const heading = el("h2", { id: titleId, tabindex: "-1" }, title);
  const closeButton = !mustAnswer && el("button", { type: "button", class: "icon-button", "aria-label": "Close", on: { click: leave } }, icon("close"));
  const foot = el("div", { class: "dialog-foot" }, buttons);
  const form = el(
    "form",
    { class: "dialog-form", novalidate: true, on: { submit: (event) => { event.preventDefault(); onSubmit?.(); } } },
    el("div", { class: "dialog-head" }, heading, closeButton),
    el("div", { class: "dialog-body" }, content),
    el("div", { class: "dialog-messages", role: "status", "aria-live": "polite" }),
    foot,
  );
  const node = el("dialog", { class: isWide ? "dialog is-wide" : "dialog", "aria-labelledby": titleId }, form);
  const dialog = { node, mustAnswer, isDirty, isSuspended: false, close: () => node.close() };
  let question = null;

  /** Close, or ask first. Escape twice does not discard: the question itself is closed by it. */
  function leave() {
    if (mustAnswer) return;
    if (!isDirty()) node.close();
    else if (question) keepEditing();
    else ask();
  }

  function ask() {
    const from = document.activeElement;
    const keep = el("button", { type: "button", class: "button", on: { click: keepEditing } }, "Keep editing");
    const discard = el("button", { type: "button", class: "button button-danger", on: { click: () => node.close() } }, "Discard");
    const words = el("p", { id: newId("question") }, "Discard what you have typed?");
    question = el("div", { class: "dialog-foot dialog-question", role: "alertdialog", "aria-labelledby": words.id }, words, keep, discard);
    question.from = from;
    foot.hidden = true;
    form.append(question);
    keep.focus();
  }

  function keepEditing() {
    const { from } = question;
    question.remove();
    question = null;
    foot.hidden = false;
    from?.focus();
  }

  // Some browsers close at the second Escape whatever "cancel" says, so the key itself is handled.
  node.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.preventDefault();
    leave();
  });
  node.addEventListener("cancel", (event) => {
    event.preventDefault();
    leave();
  });
  node.addEventListener("close", () => {
    if (dialog.isSuspended) return;
    forget(dialog);
    node.remove();
    onClose?.();
  });
  if (mustAnswer) node.setAttribute("closedby", "none");
  for (const button of node.querySelectorAll("[data-cancel]")) button.addEventListener("click", leave);
  document.body.append(node);
  remember(dialog);
  node.showModal();
  return dialog;
}

function remember(dialog) {
  opened.add(dialog);
  if (opened.size === 1) addEventListener("beforeunload", holdBack);
}

function forget(dialog) {
  opened.delete(dialog);
  if (!opened.size) removeEventListener("beforeunload", holdBack);
}

const isPrecious = (dialog) => dialog.mustAnswer || dialog.isDirty();

// The browser then asks whether to leave the page.
function holdBack(event) {
  if ([...opened].some(isPrecious)) event.preventDefault();
}

/** Close what is open, except what the user must answer and what was filled in: the view may change below it. */
export function closeDialogs() {
  for (const dialog of [...opened]) if (!isPrecious(dialog)) dialog.close();
}

/** Put filled-in dialogs aside, with all that is in them, for as long as the user logs in. Says whether there are any. */
export function suspendDialogs() {
  closeDialogs();
  for (const dialog of opened) {
    if (dialog.mustAnswer || dialog.isSuspended) continue;
    dialog.isSuspended = true;
    dialog.node.close();
    dialog.node.remove();
  }
  return [...opened].some((dialog) => dialog.isSuspended);
}

/** Show them again; or discard them, if somebody else has logged in. */
export function resumeDialogs(isSameUser) {
  for (const dialog of [...opened].filter((each) => each.isSuspended)) {
    dialog.isSuspended = false;
    if (!isSameUser) {
      forget(dialog);
      continue;
    }
    document.body.append(dialog.node);
    dialog.node.showModal();
  }
}

/** A button that closes the dialog it stands in, as Escape does. */
export function cancelButton(text = "Cancel") {
  return el("button", { type: "button", class: "button", "data-cancel": true }, text);
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

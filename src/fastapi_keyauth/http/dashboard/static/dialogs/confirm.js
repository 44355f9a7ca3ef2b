// Questions before what stops clients: revoke and disable.

import { api } from "../api.js";
import { el, written } from "../dom.js";
import { formAlert, showErrors } from "../fields.js";
import { ago, exactly, secondsUntil } from "../format.js";
import { icon } from "../icons.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";

const RECENTLY_S = 86_400;

/** Revoke a key, once it was named and its last use seen; `onRevoked` gets an ApiError where it holds only later. */
export function confirmRevoke(key, onRevoked) {
  confirm({
    title: "Revoke this key?",
    action: "Revoke key",
    kind: "danger",
    content: [
      facts(key),
      recently(key),
      el("p", {}, "It stops working at once, everywhere, and cannot be brought back. Its history stays."),
    ],
    send: () => api.revoke(key.id),
    onDone: onRevoked,
  });
}

/** Switch a key off; it can be switched on again. `onDisabled` gets the key, or an ApiError where it holds only later. */
export function confirmDisable(key, onDisabled) {
  confirm({
    title: "Disable this key?",
    action: "Disable key",
    kind: "primary",
    content: [facts(key), recently(key), el("p", {}, "Requests with it are refused until you enable it again.")],
    send: () => api.change(key.id, { enabled: false }),
    onDone: onDisabled,
  });
}

function facts(key) {
  return el(
    "dl",
    { class: "facts" },
    el("dt", {}, "Key"),
    el("dd", {}, written(key.name, { class: "strong" }), el("code", { class: "key-hint" }, key.hint)),
    el("dt", {}, "Last used"),
    el("dd", {}, key.last_used_at ? [ago(key.last_used_at), el("span", { class: "muted" }, " (", exactly(key.last_used_at), ")")] : "Never"),
  );
}

function recently(key) {
  if (!key.last_used_at || -secondsUntil(key.last_used_at) > RECENTLY_S) return null;
  return el("div", { class: "notice notice-warn" }, icon("alert"), el("p", {}, "Something has used it within the last day, and will fail."));
}

function confirm({ title, action, kind, content, send, onDone }) {
  const alert = formAlert();
  const button = submitButton(action, kind);
  const dialog = openDialog({
    title,
    content: [alert, ...content],
    buttons: [cancelButton(), button],
    onSubmit: () =>
      whileBusy(button, async () => {
        try {
          const answer = await send();
          dialog.close();
          onDone(answer);
        } catch (error) {
          if (!error.isStored) {
            showErrors([], alert, error);
            return;
          }
          dialog.close();
          onDone(null, error);
        }
      }),
  });
}

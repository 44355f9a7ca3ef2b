// Questions before what stops clients: revoke and disable.

import { api } from "../api.js";
import { el, written } from "../dom.js";
import { clearErrors, formAlert, showErrors } from "../fields.js";
import { reasonField } from "../fields-reason.js";
import { ago, exactly, secondsUntil } from "../format.js";
import { icon } from "../icons.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";
import { freshness, mayBeStale } from "./fresh.js";

const RECENTLY_S = 86_400;

/** Revoke a key. `onRevoked(reason, error)`; `error`: the change takes effect later. `onStale` see `freshness`. */
export function confirmRevoke(key, options, onRevoked, onStale) {
  confirm({
    key,
    title: "Revoke this key?",
    action: "Revoke key",
    kind: "danger",
    statuses: ["active", "disabled", "expired"],
    consequence: "It stops working immediately and cannot be restored. Its history is kept.",
    options,
    send: async (reason) => {
      await api.revoke(key.id, reason);
      return null;
    },
    onDone: (_nothing, reason, pending) => onRevoked(reason, pending),
    onStale,
  });
}

/** Disable a key. `onDisabled` gets the key, or an ApiError if the change takes effect later. */
export function confirmDisable(key, options, onDisabled, onStale) {
  confirm({
    key,
    title: "Disable this key?",
    action: "Disable key",
    kind: "primary",
    statuses: ["active"],
    consequence: options.is_admin
      ? "Requests with it are refused until an administrator enables it again. Its owner cannot enable it."
      : "Requests with it are refused until you enable it again.",
    options,
    send: (reason) => api.change(key.id, { enabled: false, ...(reason && { reason }) }),
    onDone: (now, _reason, pending) => onDisabled(now, pending),
    onStale,
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
  return el("div", { class: "notice notice-warn" }, icon("alert"), el("p", {}, "A client has used it within the last day. Its requests will fail."));
}

function confirm({ key, options, title, action, kind, statuses, consequence, send, onDone, onStale }) {
  const alert = formAlert();
  const reason = reasonField();
  const button = submitButton(action, kind);
  const fresh = freshness(key, statuses, onStale);
  const dialog = openDialog({
    title,
    content: [alert, fresh.node, facts(key), recently(key), el("p", {}, consequence), reason.node],
    buttons: [cancelButton(), button],
    onSubmit: () =>
      whileBusy(button, async () => {
        if (button.hidden) return;
        clearErrors([reason], alert);
        const problem = reason.problem(options.key_prefix);
        if (problem) {
          showErrors([reason], alert, { fields: { reason: problem } });
          return;
        }
        const why = reason.read();
        try {
          const answer = await send(why);
          dialog.close();
          onDone(answer, why);
        } catch (error) {
          if (error.isStored) {
            dialog.close();
            onDone(null, why, error);
          } else if (mayBeStale(error)) {
            await fresh.check();
          } else {
            showErrors([reason], alert, error);
          }
        }
      }),
  });
  fresh.attach(dialog, button);
}

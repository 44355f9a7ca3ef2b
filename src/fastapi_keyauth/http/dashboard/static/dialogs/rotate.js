// A new secret for a key, and how long the old one keeps working.

import { api } from "../api.js";
import { el, written } from "../dom.js";
import { choices, clearErrors, field, formAlert, showErrors } from "../fields.js";
import { reasonField } from "../fields-reason.js";
import { ago, exact } from "../format.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";
import { freshness, mayBeStale } from "./fresh.js";
import { showToken } from "./token.js";

const OVERLAPS = [
  ["0", "Not at all"],
  ["3600", "1 hour"],
  ["86400", "1 day"],
  ["259200", "3 days"],
  ["604800", "7 days"],
];
const USUAL_OVERLAP = "86400";

/** Ask for the overlap, rotate, show the new token; `onRotated` once it has been saved, `onStale` see `freshness`. */
export function openRotate(key, options, onRotated, onStale) {
  const { node: field, read } = overlapField(key);
  const reason = reasonField();
  const alert = formAlert();
  const button = submitButton("Rotate key");
  const fresh = freshness(key, ["active"], onStale);
  const dialog = openDialog({
    title: "Rotate key",
    content: [
      alert,
      fresh.node,
      el("p", {}, written(key.name, { class: "strong" }), " gets a new secret. Its name, scopes and limits stay, and both secrets share the limits."),
      key.last_used_at && el("p", { class: "muted" }, "Last used ", ago(key.last_used_at), "."),
      key.secrets.length > 1 &&
        el("div", { class: "notice notice-warn" }, el("p", {}, "A rotation is in progress. The oldest secret, ", el("code", {}, key.secrets[1].hint), ", stops working immediately.")),
      field.node,
      reason.node,
    ],
    buttons: [cancelButton(), button],
    onSubmit: () =>
      whileBusy(button, async () => {
        if (button.hidden) return;
        clearErrors([field, reason], alert);
        const problem = reason.problem(options.key_prefix);
        if (problem) {
          showErrors([field, reason], alert, { fields: { reason: problem } });
          return;
        }
        try {
          const { token, ...rotated } = await api.rotate(key.id, { overlap_s: read(), ...(reason.read() && { reason: reason.read() }) });
          dialog.close();
          showToken({ key: rotated, token, headerName: options.header_name, isRotation: true, onClose: () => onRotated(rotated) });
        } catch (error) {
          if (error.token) {
            // Stored, but not effective on all workers yet: the new token is lost if it is not shown now.
            dialog.close();
            const { token } = error;
            delete error.token;
            showToken({ key, token, headerName: options.header_name, isRotation: true, warning: error.message, onClose: () => onRotated(null) });
          } else if (mayBeStale(error)) {
            await fresh.check();
          } else {
            showErrors([field, reason], alert, error);
          }
        }
      }),
  });
  fresh.attach(dialog, button);
}

function overlapField(key) {
  const result = el("p", { class: "result", "aria-live": "polite" });
  const choice = choices("overlap", OVERLAPS, USUAL_OVERLAP, show);

  function show() {
    const seconds = Number(choice.read());
    const end = new Date(Date.now() + seconds * 1000);
    const ownEnd = key.expires_at ? new Date(key.expires_at) : null;
    if (!seconds) result.textContent = "The old secret stops working immediately. Clients that still send it are refused.";
    else result.textContent = `Both secrets work until ${exact(ownEnd && ownEnd < end ? ownEnd : end)}.`;
  }

  show();
  const node = field({
    name: "overlap_s", label: "The old secret keeps working for", control: el("div", {}, choice.node, result), isGroup: true,
  });
  return { node, read: () => Number(choice.read()) };
}

// The question before an owner is suspended: it stops all clients with keys of that owner.

import { api } from "../api.js";
import { el, written } from "../dom.js";
import { clearErrors, formAlert, showErrors } from "../fields.js";
import { reasonField } from "../fields-reason.js";
import { count } from "../format.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";

/** Suspend an owner. `onDone(error)`; `error`: the change takes effect later. */
export function confirmSuspension(owner, options, onDone) {
  const alert = formAlert();
  const reason = reasonField({ hint: "Shown to the owner.", placeholder: "Unpaid invoice" });
  const button = submitButton("Suspend owner", "danger");
  const { active } = owner.keys;
  const keys = active ? `Its ${count(active, "active key")} and keys that are created later` : "Its keys";
  const dialog = openDialog({
    title: "Suspend this owner?",
    content: [
      alert,
      el("dl", { class: "facts" }, el("dt", {}, "Owner"), el("dd", {}, written(owner.name ?? owner.owner_id, { class: "strong" }), owner.name && el("code", { class: "key-hint" }, owner.owner_id))),
      el("p", {}, `${keys} are refused until an administrator resumes the owner. Nothing is revoked.`),
      reason.node,
    ],
    buttons: [cancelButton(), button],
    onSubmit: () =>
      whileBusy(button, async () => {
        clearErrors([reason], alert);
        const problem = reason.problem(options.key_prefix);
        if (problem) {
          showErrors([reason], alert, { fields: { reason: problem } });
          return;
        }
        try {
          await api.suspendOwner(owner.owner_id, reason.read());
          dialog.close();
          onDone();
        } catch (error) {
          if (!error.isStored) {
            showErrors([reason], alert, error);
            return;
          }
          dialog.close();
          onDone(error);
        }
      }),
  });
}

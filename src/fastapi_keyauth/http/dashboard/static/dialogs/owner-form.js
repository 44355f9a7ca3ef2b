// The form of an owner: its name, and the limits that all its keys share.

import { api } from "../api.js";
import { el } from "../dom.js";
import { clearErrors, formAlert, showErrors, textField } from "../fields.js";
import { limitsField } from "../fields-limits.js";
import { reasonField } from "../fields-reason.js";
import { containsToken } from "../search-text.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";

const MAX_NAME = 100;

/** The form that was opened last. */
let last = null;

/**
 * Edit an owner. Only what was changed is sent. `onDone(error)` once it is stored; `error`: the change takes effect later.
 * `onClose` in any case. A form that is open, or was put aside for a login, is not opened again: it gets the new view's
 * callbacks.
 */
export function openOwnerForm(owner, options, callbacks) {
  if (last?.ownerId === owner.owner_id && (last.dialog.node.open || last.dialog.isSuspended)) {
    last.callbacks = callbacks;
    return;
  }
  const form = { ownerId: owner.owner_id, callbacks };
  last = form;
  const fields = fieldsOf(owner, options);
  const all = Object.values(fields);
  const alert = formAlert();
  const button = submitButton("Save changes");
  const state = () => JSON.stringify(all.map((each) => each.state()));
  const dialog = openDialog({
    title: "Edit owner",
    isWide: true,
    content: [
      alert,
      el("dl", { class: "facts" }, el("dt", {}, "Owner ID"), el("dd", {}, el("code", { class: "key-hint" }, owner.owner_id))),
      ...all.map(({ node }) => node),
    ],
    buttons: [cancelButton(), button],
    isDirty: () => state() !== pristine,
    onSubmit: () => whileBusy(button, submit),
    // The browser reports the end of a form later, when the next one may be open.
    onClose: () => last === form && form.callbacks.onClose(),
  });
  form.dialog = dialog;
  const pristine = state();

  async function submit() {
    clearErrors(all, alert);
    const wrong = problemsOf(fields, options);
    if (wrong) {
      showErrors(all, alert, { fields: wrong, message: "" });
      return;
    }
    try {
      const body = changesOf(owner, fields);
      if (Object.keys(body).length) await api.setOwner(owner.owner_id, body);
      dialog.close();
      form.callbacks.onDone();
    } catch (error) {
      if (error.isStored) {
        dialog.close();
        form.callbacks.onDone(error);
      } else {
        // That the user is no administrator any more concerns the whole form.
        if (error.code === "insufficient_scope") error.fields = {};
        showErrors(all, alert, error);
      }
    }
  }
}

function fieldsOf(owner, options) {
  return {
    name: textField({
      name: "name", label: "Name", isOptional: true, hint: "Shown to people who act for the owner.", placeholder: "Project X", maxlength: MAX_NAME,
      value: owner.name ?? "", autofocus: true,
    }),
    limits: limitsField({
      units: options.units, current: owner.limits, hasHourly: false, label: "Limits of all its keys together",
      hint: "Without a line there is no such limit.", defaults: options.default_owner_limits,
    }),
    reason: reasonField({ hint: "Kept in the log of the service.", placeholder: "New contract" }),
  };
}

function changesOf(owner, { name, limits, reason }) {
  const body = {};
  if (name.read() !== (owner.name ?? "")) body.name = name.read() || null;
  // Null: whatever the defaults are from now on.
  if (limits.isChanged()) body.limits = limits.isDefault() ? null : limits.read();
  if (Object.keys(body).length && reason.read()) body.reason = reason.read();
  return body;
}

function problemsOf({ name, limits, reason }, options) {
  const found = {};
  if (containsToken(name.read(), options.key_prefix)) found.name = "This looks like a key itself. Enter a name of the owner.";
  if (limits.problem()) found.limits = limits.problem();
  if (reason.problem(options.key_prefix)) found.reason = reason.problem(options.key_prefix);
  return Object.keys(found).length ? found : null;
}

// What may be done with a key in its state, for the menu of a row and for the buttons of its page.

import { api } from "./api.js";
import { confirmDisable, confirmRevoke } from "./dialogs/confirm.js";
import { openEdit, openNewKey } from "./dialogs/key-form.js";
import { openRotate } from "./dialogs/rotate.js";
import { showToken } from "./dialogs/token.js";
import { say } from "./messages.js";

/** Make a key and show its token; `onCreated` gets the key once the token has been saved. */
export function startNewKey(options, onCreated) {
  openNewKey(options, ({ token, ...key }) =>
    showToken({ key, token, headerName: options.header_name, onClose: () => onCreated(key) }),
  );
}

/** [{name, label, icon, isDanger, run}]. `changed` gets the key as it is afterwards, or null: ask the server. */
export function actionsFor(key, options, changed) {
  const done = (sentence) => (answer, pending) => {
    if (pending) say(`${sentence} ${pending.message}`, "warn");
    else say(sentence);
    changed(pending ? null : answer);
  };
  const edit = { name: "edit", label: "Edit", icon: "edit", run: () => openEdit(key, options, done("The key is changed.")) };
  const rotate = { name: "rotate", label: "Rotate", icon: "rotate", run: () => openRotate(key, options, changed) };
  const disable = {
    name: "disable", label: "Disable", icon: "pause", run: () => confirmDisable(key, done("The key is disabled.")),
  };
  const enable = { name: "enable", label: "Enable", icon: "play", run: () => switchOn(key, done("The key is enabled.")) };
  const revoke = {
    name: "revoke", label: "Revoke", icon: "revoke", isDanger: true,
    run: () => confirmRevoke(key, (_nothing, pending) => done("The key is revoked.")(null, pending)),
  };
  return { active: [edit, rotate, disable, revoke], disabled: [enable, edit, revoke], expired: [edit, revoke], revoked: [] }[key.status];
}

// Nothing stops by it, so it asks nothing.
async function switchOn(key, done) {
  try {
    done(await api.change(key.id, { enabled: true }));
  } catch (error) {
    if (error.isStored) done(null, error);
    else say(error.message, "bad");
  }
}

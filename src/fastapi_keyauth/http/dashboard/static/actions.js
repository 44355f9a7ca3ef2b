// What can be done with a key in its state, for the menu of a row and for the buttons of its page.

import { api } from "./api.js";
import { copy } from "./clipboard.js";
import { confirmDisable, confirmRevoke } from "./dialogs/confirm.js";
import { offerCreated } from "./dialogs/created.js";
import { openEdit, openNewKey } from "./dialogs/key-form.js";
import { openRotate } from "./dialogs/rotate.js";
import { showToken } from "./dialogs/token.js";
import { saysLeaked } from "./fields-reason.js";
import { announceChange, announceCreation, noteChange } from "./live.js";
import { say } from "./messages.js";
import { mayWrite } from "./owners.js";

/** Create a key for an owner and show its token. Views are notified once the token has been saved. */
export function startNewKey(options, ownerId) {
  const saved = (key) => {
    say(`${key.name} is ready.`);
    announceCreation(key);
  };
  openNewKey(options, ownerId, ({ token, ...key }) =>
    showToken({ key, token, headerName: options.header_name, onClose: () => saved(key) }),
  );
}

/** [{name, label, icon, isDanger, run}]. Views are notified of changes: a dialog may outlive the view that opened it. */
export function actionsFor(key, options) {
  if (!mayWrite(options, key.owner_id)) return [];
  const changed = (now) => announceChange(key.id, now);
  // Of what others have changed, other tabs of theirs tell.
  const stale = (now) => noteChange(key.id, now);
  const done = (sentence) => (answer, pending) => {
    if (pending) say(`${sentence} ${pending.message}`, "warn");
    else say(sentence);
    changed(pending ? null : answer);
  };
  const revoked = (reason, pending) => {
    done("The key has been revoked.")(null, pending);
    if (saysLeaked(reason)) offerCreated(key, options, reason);
  };
  const edit = { name: "edit", label: "Edit", icon: "edit", run: () => openEdit(key, options, done("The key has been updated."), stale) };
  const rotate = { name: "rotate", label: "Rotate", icon: "rotate", run: () => openRotate(key, options, changed, stale) };
  const disable = {
    name: "disable", label: "Disable", icon: "pause", run: () => confirmDisable(key, options, done("The key has been disabled."), stale),
  };
  const enable = { name: "enable", label: "Enable", icon: "play", run: () => enableKey(key, done("The key has been enabled.")) };
  const revoke = {
    name: "revoke", label: "Revoke", icon: "revoke", isDanger: true,
    run: () => confirmRevoke(key, options, revoked, stale),
  };
  const mayEnable = options.is_admin || !key.disabled_by_admin;
  return { active: [edit, rotate, disable, revoke], disabled: [...(mayEnable ? [enable] : []), edit, revoke], expired: [edit, revoke], revoked: [] }[key.status];
}

/** The same for the menu of a row, which has no room for a button beside the id. */
export function menuActionsFor(key, options) {
  const actions = actionsFor(key, options);
  const copyId = { name: "copy-id", label: "Copy ID", icon: "copy", run: () => copyIdOf(key) };
  return actions.length ? [...actions.slice(0, -1), copyId, actions.at(-1)] : [];
}

async function copyIdOf(key) {
  if (await copy(key.id)) say(`The ID of ${key.name} has been copied.`);
  else say(`Your browser does not allow it. The ID is ${key.id}.`, "warn");
}

// No client stops because of it, so it asks nothing.
async function enableKey(key, done) {
  try {
    done(await api.change(key.id, { enabled: true }));
  } catch (error) {
    if (error.isStored) done(null, error);
    else if (error.code === "insufficient_scope") say("An administrator disabled this key. Only an administrator can enable it.", "bad");
    else say(error.message, "bad");
  }
}

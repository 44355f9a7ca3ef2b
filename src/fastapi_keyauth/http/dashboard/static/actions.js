// What can be done with a key in its state, for the menu of a row and for the buttons of its page.

import { api } from "./api.js";
import { copy } from "./clipboard.js";
import { confirmDisable, confirmRevoke } from "./dialogs/confirm.js";
import { openEdit, openNewKey } from "./dialogs/key-form.js";
import { openRotate } from "./dialogs/rotate.js";
import { showToken } from "./dialogs/token.js";
import { say } from "./messages.js";
import { tellOtherTabs } from "./tabs.js";

/** Create a key and show its token; `onCreated` gets the key once the token has been saved. */
export function startNewKey(options, onCreated) {
  openNewKey(options, ({ token, ...key }) =>
    showToken({ key, token, headerName: options.header_name, onClose: () => onCreated(key) }),
  );
}

/** [{name, label, icon, isDanger, run}]. `onChange` gets the key as it is afterwards, or null: ask the server. */
export function actionsFor(key, options, onChange) {
  const changed = (now) => {
    tellOtherTabs("changed", key.id);
    onChange(now);
  };
  const done = (sentence) => (answer, pending) => {
    if (pending) say(`${sentence} ${pending.message}`, "warn");
    else say(sentence);
    changed(pending ? null : answer);
  };
  const edit = { name: "edit", label: "Edit", icon: "edit", run: () => openEdit(key, options, done("The key has been changed."), onChange) };
  const rotate = { name: "rotate", label: "Rotate", icon: "rotate", run: () => openRotate(key, options, changed, onChange) };
  const disable = {
    name: "disable", label: "Disable", icon: "pause", run: () => confirmDisable(key, done("The key has been disabled."), onChange),
  };
  const enable = { name: "enable", label: "Enable", icon: "play", run: () => enableKey(key, done("The key has been enabled.")) };
  const revoke = {
    name: "revoke", label: "Revoke", icon: "revoke", isDanger: true,
    run: () => confirmRevoke(key, (_nothing, pending) => done("The key has been revoked.")(null, pending), onChange),
  };
  return { active: [edit, rotate, disable, revoke], disabled: [enable, edit, revoke], expired: [edit, revoke], revoked: [] }[key.status];
}

/** The same for the menu of a row, which has no room for a button beside the id. */
export function menuActionsFor(key, options, onChange) {
  const actions = actionsFor(key, options, onChange);
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
    else say(error.message, "bad");
  }
}

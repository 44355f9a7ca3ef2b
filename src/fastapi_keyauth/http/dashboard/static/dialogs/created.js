// After a leak: the keys that the leaked key has created may be in the wrong hands, too.

import { api } from "../api.js";
import { el, written } from "../dom.js";
import { formAlert, showErrors } from "../fields.js";
import { count } from "../format.js";
import { icon } from "../icons.js";
import { announceChange } from "../live.js";
import { say } from "../messages.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";

const MOST_ON_A_PAGE = 200;
/** Keys that were created one by another; more are left to the next look. */
const MOST_ASKED = 50;

/** Offer to revoke what a key has created, and what those keys have created. Asks nothing if there are no such keys. */
export async function offerCreated(key, options, reason) {
  try {
    const found = await findCreated(key, options);
    if (found.length) ask(key, found, reason);
  } catch (error) {
    if (!error.isSessionEnd) say(`The keys that ${key.name} created could not be listed. ${error.message}`, "bad");
  }
}

async function findCreated(key, options) {
  // Only those who act for several owners, and administrators, name one. Administrators see the keys of all owners.
  const owner = options.acts_for_owners && !options.is_admin ? { owner_id: key.owner_id } : {};
  const found = new Map();
  const waiting = [key.id];
  for (let asked = 0; waiting.length && asked < MOST_ASKED; asked += 1) {
    const query = { ...owner, created_by: `key:${waiting.shift()}`, limit: MOST_ON_A_PAGE };
    const { items } = await api.list(query);
    for (const item of items.filter(({ id }) => !found.has(id))) {
      found.set(item.id, item);
      waiting.push(item.id);
    }
  }
  return [...found.values()].filter(({ status }) => status !== "revoked");
}

function ask(key, created, reason) {
  const alert = formAlert();
  const words = count(created.length, "key");
  const button = submitButton(`Revoke ${words}`, "danger");
  let left = created;
  const dialog = openDialog({
    title: "Revoke the keys that it created?",
    content: [
      alert,
      el("div", { class: "notice notice-warn" }, icon("alert"), el("p", {}, written(key.name, { class: "strong" }), ` could create keys, and ${words} of them can still be used. Whoever had it may have them.`)),
      el("ul", { class: "created-keys", tabindex: "0", "aria-label": "Keys that it created" }, created.map((each) => el("li", {}, written(each.name, { class: "strong" }), " ", el("code", { class: "key-hint" }, each.hint)))),
      el("p", {}, "They stop working immediately and cannot be restored."),
    ],
    buttons: [cancelButton("Keep them"), button],
    onSubmit: () =>
      whileBusy(button, async () => {
        try {
          for (const each of [...left]) {
            await revoke(each, reason);
            left = left.filter((other) => other !== each);
          }
          dialog.close();
          say(`${words} revoked.`);
        } catch (error) {
          showErrors([], alert, error);
        }
      }),
  });
}

async function revoke(key, reason) {
  try {
    await api.revoke(key.id, reason);
  } catch (error) {
    if (error.isStored) say(`${key.name}: ${error.message}`, "warn");
    else if (error.status !== 404) throw error;
  }
  announceChange(key.id, null);
}

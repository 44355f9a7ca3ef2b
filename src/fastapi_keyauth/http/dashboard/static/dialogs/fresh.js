// A dialog about a key whose state may change elsewhere while it is open.

import { el, written } from "../dom.js";
import { icon } from "../icons.js";
import { watchKey } from "../live.js";

const REASONS = {
  revoked: "This key has been revoked in the meantime. It cannot be changed any more.",
  expired: "This key has expired in the meantime.",
  disabled: "This key has been disabled in the meantime. Enable it first.",
  active: "This key has been enabled in the meantime.",
};
const MISSING = "This key does not exist any more.";

/**
 * Watch the key while a dialog is open. If its status is no longer one of `statuses`, the dialog says so and its button
 * goes away. `onStale` gets the key as it is now, or null. Gives {node, attach(dialog, button), check()}.
 */
export function freshness(key, statuses, onStale) {
  const node = el("div", { class: "notice notice-warn", role: "alert", hidden: true });
  let watched = null;
  let button = null;
  let isStale = false;

  function read(now) {
    if (isStale || (now && statuses.includes(now.status))) return;
    isStale = true;
    node.hidden = false;
    node.replaceChildren(icon("alert"), el("p", {}, written(key.name, { class: "strong" }), ": ", now ? REASONS[now.status] : MISSING));
    button.hidden = true;
    onStale(now);
  }

  return {
    node,
    attach(dialog, submit) {
      button = submit;
      watched = watchKey(key.id, read);
      dialog.node.addEventListener("close", () => dialog.isSuspended || watched.stop());
    },
    /** After a refusal that may have this reason. */
    check: () => watched.check(),
  };
}

/** Whether a refusal may mean that the key has changed since the dialog was opened. */
export const mayBeStale = (error) => error.status === 404 || error.code === "key_not_active";

// The owner whose keys are listed: its limits, what is left of them, and whether it is suspended.

import { api } from "./api.js";
import { openOwnerForm } from "./dialogs/owner-form.js";
import { confirmSuspension } from "./dialogs/suspend.js";
import { el, refill, written } from "./dom.js";
import { exactly } from "./format.js";
import { icon } from "./icons.js";
import { limitList } from "./limits.js";
import { announceChangeOfOwner, keepFresh, onChangeOfOwner } from "./live.js";
import { say } from "./messages.js";

const EDIT = "owner-edit";

/**
 * Gives {node, load(ownerId, isEditing)}. Without limits and suspension there is nothing to show, except to administrators,
 * who edit, suspend and resume the owner here. `signal` ends it; `onOwner(owner)` is called once it is loaded,
 * `onEditing(isEditing)` when its form is opened or closed.
 */
export function ownerCard(options, signal, { onOwner, onEditing }) {
  const node = el("div", { class: "owner-card", hidden: true });
  let shown = "";
  let drawn = "";

  function show(owner) {
    const text = JSON.stringify(owner);
    if (text === drawn) return;
    drawn = text;
    const hasLimits = owner.limits.length > 0;
    const parts = [suspension(owner, resumeButton(owner)), (hasLimits || options.is_admin) && limitsCard(owner, [editButton(owner), suspendButton(owner)])].filter(Boolean);
    node.hidden = !parts.length;
    refill(node, ...parts);
  }

  const button = (label, iconName, kind, run, focus = "owner-action") =>
    options.is_admin && el("button", { type: "button", class: `button ${kind}`, "data-focus": focus, on: { click: run } }, icon(iconName), label);
  const editButton = (owner) => button("Edit owner", "edit", "", () => edit(owner), EDIT);
  const resumeButton = (owner) => button("Resume owner", "play", "", () => resume(owner));
  const suspendButton = (owner) =>
    !owner.suspended_at && button("Suspend owner", "pause", "button-quiet-danger", () => confirmSuspension(owner, options, (pending) => done(owner, "The owner has been suspended.", pending)));

  function done(owner, sentence, pending) {
    if (pending) say(`${sentence} ${pending.message}`, "warn");
    else say(sentence);
    announceChangeOfOwner(owner.owner_id);
  }

  function edit(owner) {
    onEditing(true);
    openOwnerForm(owner, options, {
      onDone: (pending) => done(owner, "The owner has been updated.", pending),
      onClose() {
        if (signal.aborted) return;
        onEditing(false);
        // A form that the address opened has no button to return to.
        if (document.activeElement === document.body) node.querySelector(`[data-focus="${EDIT}"]`)?.focus();
      },
    });
  }

  // No client stops because of it, so it asks nothing.
  async function resume(owner) {
    const sentence = "The owner has been resumed.";
    try {
      await api.resumeOwner(owner.owner_id);
      done(owner, sentence);
    } catch (error) {
      if (error.isStored) done(owner, sentence, error);
      else say(error.message, "bad");
    }
  }

  async function load(ownerId = shown, isEditing = false) {
    if (ownerId !== shown) {
      node.hidden = true;
      drawn = "";
    }
    shown = ownerId;
    if (!ownerId) return;
    try {
      const owner = await api.owner(ownerId, signal);
      if (ownerId !== shown) return;
      show(owner);
      onOwner(owner);
      if (isEditing) edit(owner);
    } catch {
      // The list of keys says what is wrong; limits that cannot be read are not shown.
      if (ownerId === shown) node.hidden = true;
    }
  }

  keepFresh(() => load(), signal);
  onChangeOfOwner((id) => id === shown && load(), signal);
  return { node, load };
}

function limitsCard(owner, buttons) {
  return el(
    "section",
    { class: "card owner-limits" },
    el("div", { class: "card-head" }, el("h2", {}, "Rate limits of ", written(owner.name ?? owner.owner_id)), buttons.some(Boolean) && el("div", { class: "buttons" }, buttons)),
    el("p", { class: "muted" }, owner.limits.length ? "All keys together have these limits." : "There is no limit of all its keys together."),
    owner.limits.length > 0 && limitList(owner.limits),
  );
}

/** A notice that all keys of an owner are refused, or null. `button`: what ends it, if the user may. */
export function suspension(owner, button = null) {
  if (!owner.suspended_at) return null;
  return el(
    "div",
    { class: "notice notice-bad", role: "status" },
    icon("alert"),
    el(
      "div",
      {},
      el("p", {}, el("strong", {}, written(owner.name ?? owner.owner_id), " is suspended."), " All its keys are refused until an administrator resumes it."),
      el("p", {}, owner.reason ? ["Reason: ", written(owner.reason), " · "] : "", "Since ", exactly(owner.suspended_at)),
    ),
    button,
  );
}

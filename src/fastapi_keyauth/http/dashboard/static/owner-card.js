// The owner whose keys are listed: its limits, what is left of them, and whether it is suspended.

import { api } from "./api.js";
import { el, written } from "./dom.js";
import { exactly } from "./format.js";
import { icon } from "./icons.js";
import { limitList } from "./limits.js";
import { keepFresh } from "./live.js";

/** Gives {node, load(ownerId)}. Without limits and suspension there is nothing to show. `signal` ends it. */
export function ownerCard(options, signal) {
  const node = el("div", { class: "owner-card", hidden: true });
  let shown = "";
  let drawn = "";

  function show(owner) {
    const text = JSON.stringify(owner);
    if (text === drawn) return;
    drawn = text;
    const parts = [suspension(owner), owner.limits.length > 0 && limitsCard(owner)].filter(Boolean);
    node.hidden = !parts.length;
    node.replaceChildren(...parts);
  }

  async function load(ownerId = shown) {
    if (ownerId !== shown) {
      node.hidden = true;
      drawn = "";
    }
    shown = ownerId;
    if (!ownerId) return;
    try {
      const owner = await api.owner(ownerId, signal);
      if (ownerId === shown) show(owner);
    } catch {
      // The list of keys says what is wrong; limits that cannot be read are not shown.
      if (ownerId === shown) node.hidden = true;
    }
  }

  keepFresh(() => load(), signal);
  return { node, load };
}

function limitsCard(owner) {
  return el(
    "section",
    { class: "card owner-limits" },
    el("h2", {}, "Rate limits of ", written(owner.name ?? owner.owner_id)),
    el("p", { class: "muted" }, "All keys together have these limits."),
    limitList(owner.limits),
  );
}

/** A notice that all keys of an owner are refused, or null. */
export function suspension(owner) {
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
  );
}

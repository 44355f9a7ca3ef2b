// The limits of a key and of its owner, and whether the owner is suspended.

import { api } from "./api.js";
import { el, written } from "./dom.js";
import { limitList } from "./limits.js";
import { keepFresh, onChangeOfOwner } from "./live.js";
import { suspension } from "./owner-card.js";

const OWNERS = "owner-";

/**
 * Gives {node, suspension, load(key)}: a card, a place for the notice, and a way to read both again. `onOwner(owner)` is
 * called once the owner is read.
 */
export function limitsCard(id, signal, onOwner) {
  const body = el("div", {}, el("span", { class: "skeleton" }));
  const node = el("section", { class: "card" }, el("h2", {}, "Rate limits"), body);
  const notice = el("div", { class: "owner-card", hidden: true });
  let key = null;
  let drawn = "";

  function show(states, name) {
    const own = states.slice(0, key.limits.length);
    const shared = states.slice(key.limits.length).map((state) => ({ ...state, name: state.name.slice(OWNERS.length) }));
    body.replaceChildren(
      own.length ? limitList(own) : el("p", { class: "muted" }, "This key has no limits of its own."),
      ...(shared.length ? [el("h3", {}, "Shared by all keys of ", name ? written(name) : "the owner"), limitList(shared)] : []),
    );
  }

  async function load(now = key) {
    if (!now) return;
    key = now;
    try {
      const [states, owner] = await Promise.all([api.limits(id, signal), api.owner(key.owner_id, signal)]);
      const text = JSON.stringify([states, owner.name, owner.suspended_at, owner.reason]);
      if (text === drawn) return;
      drawn = text;
      show(states, owner.name);
      onOwner(owner);
      notice.hidden = !owner.suspended_at;
      notice.replaceChildren(...[suspension(owner)].filter(Boolean));
    } catch (error) {
      if (error.name !== "AbortError" && !drawn) body.replaceChildren(el("p", { class: "muted" }, error.message));
    }
  }

  keepFresh(() => load(), signal);
  onChangeOfOwner((ownerId) => ownerId === key?.owner_id && load(), signal);
  return { node, suspension: notice, load };
}

// For whom the user acts: which owner's keys are shown, and what may be done with them.

import { el, newId } from "./dom.js";
import { containsToken } from "./search-text.js";

/** Whether the user may create and change keys of an owner. */
export function mayWrite(options, ownerId) {
  if (options.is_admin || !options.acts_for_owners) return true;
  return Boolean(options.owners.find(({ owner_id: id }) => id === ownerId)?.permissions.includes("keys:write"));
}

/**
 * The owner whose keys are listed. An address may name one that the user does not act for any more. Administrators may
 * name any owner; "" stands for all of them.
 */
export function listedOwner(options, asked) {
  if (options.is_admin) return asked;
  if (!options.acts_for_owners) return "";
  const ids = options.owners.map(({ owner_id: id }) => id);
  return [asked, options.user_id].find((id) => ids.includes(id)) ?? ids[0] ?? "";
}

/** The owner of a new key, if the list shows this one. */
export const ownerOfNew = (options, listed) => listed || options.user_id;

/** The name of an owner, else its id. */
export function ownerName(options, ownerId) {
  return options.owners.find(({ owner_id: id }) => id === ownerId)?.name ?? ownerId;
}

/** A field for an owner. Gives {input, read()}; a token that was pasted is not read. */
export function ownerField(options, attributes = {}) {
  const input = el("input", { type: "search", class: "input", placeholder: "Owner ID", autocomplete: "off", spellcheck: "false", ...attributes });
  const text = () => input.value.trim();
  return { input, read: () => (containsToken(text(), options.key_prefix) ? "" : text()) };
}

/** A choice of an owner for a view without filters: a field for administrators, who may name any. See `ownerSwitch`. */
export function ownerChoice(options, onChoose) {
  if (!options.is_admin) return ownerSwitch(options, onChoose);
  const id = newId("owner");
  let chosen = "";
  const choose = () => read() !== chosen && onChoose((chosen = read()));
  // "search": Enter, and the cross that clears the field.
  const { input, read } = ownerField(options, { id, placeholder: "All owners", on: { change: choose, search: choose } });
  return {
    node: el("div", { class: "owner-switch" }, el("label", { for: id }, "Owner"), input),
    show(ownerId) {
      chosen = ownerId;
      input.value = ownerId;
    },
  };
}

/** A choice between the owners, or null if there is nothing to choose. Gives {node, show(ownerId)}. */
export function ownerSwitch(options, onChoose) {
  if (options.is_admin || options.owners.length < 2) return null;
  const id = newId("owner");
  const select = el(
    "select",
    { class: "input", id, on: { change: () => onChoose(select.value) } },
    options.owners.map(({ owner_id: ownerId, name }) => el("option", { value: ownerId }, name ?? ownerId)),
  );
  return {
    node: el("div", { class: "owner-switch" }, el("label", { for: id }, "Owner"), select),
    show: (ownerId) => (select.value = ownerId),
  };
}

// The bar above the list: search, status, disuse, owner, order.

import { filtersInAddress, SORTS, STATUSES } from "./address.js";
import { chip } from "./chip.js";
import { el, newId } from "./dom.js";
import { choices } from "./fields.js";
import { whoOf } from "./history.js";
import { icon } from "./icons.js";
import { listedOwner, ownerField } from "./owners.js";
import { readSearch } from "./search-text.js";

const UNUSED_DAYS = 90;
const TYPING_MS = 250;

/** The filters in the address, as far as this user may choose them. */
export function filtersOf(options) {
  const asked = filtersInAddress(options.key_prefix);
  const isEditing = options.is_admin && Boolean(asked.owner) && asked.isEditing;
  return { ...asked, owner: listedOwner(options, asked.owner), isEditing, local: "" };
}

/** What the server is asked for. */
export function queryOf({ status, q, owner, creator, isUnused }) {
  return {
    ...(status && status !== "all" && { status }),
    ...(!status && { include_revoked: false }),
    ...(q && { q }),
    ...(owner && { owner_id: owner }),
    ...(creator && { created_by: creator }),
    ...(isUnused && { unused_for_days: UNUSED_DAYS }),
  };
}

/**
 * Gives {node, read(), show(filters), clear(), isFiltered(), stop()}. `onChange(filters, isStep)`; `isStep`: a step that
 * Back undoes. What is read has `local` besides the filters: a search that must not leave the page.
 */
export function filterBar(options, start, onChange) {
  const note = el("p", { class: "hint search-note", id: newId("note"), role: "status" });
  const search = el("input", {
    type: "search", class: "input", "aria-label": "Search by name, ID or hint", placeholder: "Name, ID or hint", autocomplete: "off",
    spellcheck: "false", "aria-describedby": note.id,
  });
  const status = choices("status", STATUSES, start.status, () => onChange(read(), true));
  const unused = el("input", { type: "checkbox", on: { change: () => onChange(read(), true) } });
  const typed = options.is_admin && ownerField(options, { "aria-label": "Owner ID" });
  const owner = typed && typed.input;
  const creator = chip(() => {
    keptCreator = "";
    creator.show("", "");
    onChange(read(), true);
    search.focus();
  });
  const order = el("select", { class: "input sort", "aria-label": "Sort by", on: { change: () => sortBy(order.value) } });
  const node = el(
    "div",
    { class: "toolbar", role: "search" },
    el("div", { class: "search" }, icon("search"), search),
    owner && el("div", { class: "owner-filter" }, owner),
    el("fieldset", { class: "bare" }, el("legend", { class: "hidden-text" }, "Status"), status.node),
    el("label", { class: "check" }, unused, `Unused for ${UNUSED_DAYS} days`),
    order,
    creator.node,
    note,
  );
  let sort = start.sort;
  let keptOwner = start.owner;
  let keptCreator = "";
  let local = "";
  let typing;

  for (const input of [search, owner].filter(Boolean)) {
    input.addEventListener("input", () => {
      clearTimeout(typing);
      if (input === search) cut();
      typing = setTimeout(() => onChange(read(), false), TYPING_MS);
    });
  }

  // With every change, and not only before something is sent: a token must not stay in the field either.
  function cut() {
    const found = readSearch(search.value, options.key_prefix);
    local = found.local;
    note.textContent = "";
    if (local) note.textContent = "This could be a secret, so it is not sent to the server: only compared with names, IDs and hints here.";
    else if (found.q !== search.value.trim() && found.q.length === 12) {
      search.value = found.q;
      note.textContent = "Cut to the ID of the key. The rest is not sent anywhere.";
    }
  }

  function ownerOf() {
    // Whoever does not type an owner chooses one elsewhere.
    return typed ? typed.read() : keptOwner;
  }

  function read() {
    const { q } = readSearch(search.value, options.key_prefix);
    return { status: status.read(), q, isUnused: unused.checked, owner: ownerOf(), creator: keptCreator, sort, local };
  }

  function show(filters) {
    search.value = filters.q;
    status.choose(filters.status);
    unused.checked = filters.isUnused;
    keptOwner = filters.owner;
    if (owner) owner.value = filters.owner;
    keptCreator = filters.creator;
    creator.show("Created by", keptCreator && whoOf(keptCreator, options.user_id));
    showSort(filters.sort);
    local = "";
    note.textContent = "";
  }

  function showSort(value) {
    sort = value;
    const known = SORTS.some(([name]) => name === value) ? SORTS : [...SORTS, [value, "By column"]];
    order.replaceChildren(...known.map(([name, label]) => el("option", { value: name, selected: name === value }, label)));
    order.value = value;
  }

  function sortBy(value) {
    showSort(value);
    onChange(read(), true);
  }

  show(start);
  return {
    node,
    read,
    show,
    sortBy,
    showRevoked() {
      show({ ...read(), status: "revoked" });
      onChange(read(), true);
    },
    clear() {
      show({ status: "", q: "", isUnused: false, owner: owner ? "" : keptOwner, creator: "", sort });
      onChange(read(), true);
      search.focus();
    },
    isFiltered: () => Boolean(search.value.trim() || status.read() || unused.checked || keptCreator || (owner && ownerOf())),
    stop: () => clearTimeout(typing),
  };
}

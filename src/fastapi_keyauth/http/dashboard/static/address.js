// What the page shows, as the part of its address behind "#": a reload, Back and a bookmark bring it back. Browsers send
// that part to no server.

import { readSearch } from "./search-text.js";

export const STATUSES = [
  ["", "Current"], ["active", "Active"], ["disabled", "Disabled"], ["expired", "Expired"], ["revoked", "Revoked"], ["all", "All"],
];
/** Field -> label. A minus before a field: descending. */
export const SORTS = [
  ["-created", "Newest first"], ["created", "Oldest first"], ["name", "Name"], ["-used", "Last used"], ["expires", "Expires soonest"],
];
export const NEWEST_FIRST = "-created";
const FIELDS = ["name", "owner", "created", "used", "expires"];
const MOST_OF_ACTOR = 300;
const KEY = /^#\/keys\/([0-9A-Za-z]{12})$/;

let last = { address: "#/", label: "API keys" };

/** Which view the address names: {name, id}. `name`: "key" with an id, "usage", "audit", else "list". */
export function viewInAddress() {
  const id = KEY.exec(location.hash)?.[1];
  if (id) return { name: "key", id };
  const [path] = location.hash.split("?");
  return { name: ["usage", "audit"].find((name) => path === `#/${name}`) ?? "list" };
}

/** What the address says beside the view. */
export const askedInAddress = () => new URLSearchParams(location.hash.split("?")[1] ?? "");

/** An address with those values that are not empty. */
export function addressOf(path, values) {
  const asked = new URLSearchParams(Object.entries(values).filter(([, value]) => value));
  return asked.size ? `${path}?${asked}` : path;
}

/** Write an address. `isStep`: Back returns to what was shown before. `label`: what a link back to it says. */
export function rememberAddress(address, label, isStep) {
  last = { address, label };
  if (address === (location.hash || "#/")) return;
  if (isStep) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

/** What was shown before a key's own page: {address, label}. */
export const lastPlace = () => last;

/** The filters in the address; what does not belong there is dropped. `isEditing`: the form of the owner is open. */
export function filtersInAddress(prefix) {
  const asked = askedInAddress();
  const sort = asked.get("sort") ?? NEWEST_FIRST;
  return {
    status: STATUSES.some(([value]) => value === asked.get("status")) ? asked.get("status") : "",
    q: readSearch(asked.get("q") ?? "", prefix).q,
    isUnused: asked.has("unused"),
    owner: asked.get("owner") ?? "",
    creator: (asked.get("creator") ?? "").slice(0, MOST_OF_ACTOR),
    isEditing: asked.has("edit"),
    sort: FIELDS.includes(sort.replace(/^-/, "")) ? sort : NEWEST_FIRST,
  };
}

/** The address of the list with these filters. */
export function listAddress({ status = "", q = "", isUnused = false, owner = "", creator = "", sort = NEWEST_FIRST, isEditing = false } = {}) {
  return addressOf("#/", { status, q, unused: isUnused && "1", owner, creator, sort: sort !== NEWEST_FIRST && sort, edit: isEditing && "1" });
}

/** Write the filters into the address. */
export const rememberFilters = (filters, isStep) => rememberAddress(listAddress(filters), "API keys", isStep);

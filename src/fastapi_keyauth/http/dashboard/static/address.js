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
const KEY = /^#\/keys\/([0-9A-Za-z]{12})$/;

let lastList = "#/";

/** The id of the key whose page the address names, or null: it names the list. */
export function keyInAddress() {
  return KEY.exec(location.hash)?.[1] ?? null;
}

/** The filters in the address; what does not belong there is dropped. */
export function filtersInAddress(prefix) {
  const asked = new URLSearchParams(location.hash.split("?")[1] ?? "");
  const sort = asked.get("sort") ?? NEWEST_FIRST;
  return {
    status: STATUSES.some(([value]) => value === asked.get("status")) ? asked.get("status") : "",
    q: readSearch(asked.get("q") ?? "", prefix).q,
    isUnused: asked.has("unused"),
    owner: asked.get("owner") ?? "",
    sort: FIELDS.includes(sort.replace(/^-/, "")) ? sort : NEWEST_FIRST,
  };
}

/** The address of the list with these filters. */
export function listAddress({ status = "", q = "", isUnused = false, owner = "", sort = NEWEST_FIRST } = {}) {
  const asked = new URLSearchParams();
  if (status) asked.set("status", status);
  if (q) asked.set("q", q);
  if (isUnused) asked.set("unused", "");
  if (owner) asked.set("owner", owner);
  if (sort !== NEWEST_FIRST) asked.set("sort", sort);
  return asked.size ? `#/?${asked}` : "#/";
}

/** Write the filters into the address. `isStep`: Back returns to what was shown before. */
export function rememberFilters(filters, isStep) {
  const address = listAddress(filters);
  lastList = address;
  if (address === (location.hash || "#/")) return;
  if (isStep) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}

/** The list as it was last shown. */
export const lastListAddress = () => lastList;

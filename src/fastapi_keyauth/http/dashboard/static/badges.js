// Small marks: status, environment, scopes, expiry.

import { el, written } from "./dom.js";
import { ago, exact, onDate, relative, secondsUntil, SOON } from "./format.js";
import { icon } from "./icons.js";

const STATUS = { active: "Active", disabled: "Disabled", expired: "Expired", revoked: "Revoked" };
const SHOWN_SCOPES = 2;

/**
 * The status of a key, who disabled it, and whether a rotation has yet to be finished: then it has two live secrets.
 * `isSuspended`: whether its owner is suspended, so that an active key is refused, too.
 */
export function statusBadge(key, isSuspended = false) {
  if (isSuspended && key.status === "active") {
    return el("span", { class: "badges" }, el("span", { class: "status status-suspended", title: "Its owner is suspended, so this key is refused" }, "Suspended"));
  }
  const locked = key.disabled_by_admin && key.status === "disabled";
  const rotating = key.secrets.length > 1 && key.status === "active";
  return el(
    "span",
    { class: "badges" },
    el("span", { class: `status status-${key.status}` }, STATUS[key.status] ?? key.status),
    locked && el("span", { class: "tag", title: "Only an administrator can enable it" }, "by an administrator"),
    rotating &&
      el("span", { class: "tag", title: `The old secret works until ${exact(new Date(key.secrets[1].expires_at))}` }, "Rotating"),
  );
}

/** The environment, as it is in the token. */
export function environmentTag(key) {
  return written(key.environment, { class: "tag tag-environment" });
}

/** The first scopes, and how many more there are. */
export function scopeTags(scopes, shown = SHOWN_SCOPES) {
  if (!scopes.length) return el("span", { class: "tag tag-scope" }, "No scopes");
  const rest = scopes.slice(shown);
  return el(
    "span",
    { class: "badges" },
    scopes.slice(0, shown).map(scopeTag),
    rest.length > 0 && el("span", { class: "tag tag-scope", title: rest.map(scopeName).join(", ") }, `+${rest.length}`),
  );
}

/** One scope. */
export function scopeTag(scope) {
  return written(scopeName(scope), { class: "tag tag-scope", title: scope });
}

/** A scope's name; "*" in words. */
export function scopeName(scope) {
  return scope === "*" ? "Full access" : scope;
}

/** When a key was last used. */
export function lastUse(key) {
  return key.last_used_at ? ago(key.last_used_at) : el("span", { class: "muted" }, "Never");
}

/** When a key expires: marked if that is near or has passed. */
export function expiry(key) {
  if (!key.expires_at) return el("span", { class: "muted" }, "Never");
  const left = secondsUntil(key.expires_at);
  if (left > SOON || key.status === "revoked") return onDate(key.expires_at);
  const word = left > 0 ? `Expires ${relative(key.expires_at)}` : `Expired ${relative(key.expires_at)}`;
  return el(
    "time",
    { class: left > 0 ? "expiry expiry-soon" : "expiry expiry-over", datetime: key.expires_at, title: exact(new Date(key.expires_at)) },
    icon("alert"),
    word,
  );
}

// The live secrets of a key: while a rotation overlaps, whether any client still uses the old one.

import { copyIcon } from "./clipboard.js";
import { el } from "./dom.js";
import { ago, exact, exactly, relative } from "./format.js";
import { icon } from "./icons.js";

/** A card for a key's secrets. */
export function secretsCard(key) {
  const [current, old] = key.secrets;
  const isActive = key.status === "active";
  const text = sentence(key, old);
  return el(
    "section",
    { class: "card" },
    el("h2", {}, old ? "Secrets" : "Secret"),
    text && el("p", { class: "muted" }, text),
    el("ul", { class: "secrets" }, secretItem(old ? "New secret" : "Current secret", current), old && secretItem("Old secret", old, isActive && verdict(current, old))),
  );
}

function sentence({ status }, old) {
  if (status === "revoked") return "The key is revoked: no secret works.";
  if (status === "expired") return "The key has expired: no secret works.";
  if (status === "disabled") return "The key is disabled: no secret works until it is enabled.";
  return old && "A rotation is in progress: both secrets work.";
}

function secretItem(title, secret, verdictNode) {
  return el(
    "li",
    {},
    el("strong", {}, title),
    el("span", { class: "with-copy" }, el("code", { class: "key-hint" }, secret.hint), copyIcon(`Copy the hint of the ${title.toLowerCase()}`, secret.hint)),
    el("span", { class: "muted small" }, "Since ", exactly(secret.created_at)),
    el("span", { class: "small" }, secret.last_used_at ? ["Last used ", ago(secret.last_used_at)] : "Not used yet"),
    verdictNode,
  );
}

// The question of every overlap: may it end? Refused requests count as use: their client still has the old secret.
function verdict(current, old) {
  const isUsed = old.last_used_at !== null && old.last_used_at > current.created_at;
  const until = `Works until ${exact(new Date(old.expires_at))}, ${relative(old.expires_at)}.`;
  return el(
    "p",
    { class: isUsed ? "notice notice-warn" : "notice notice-good" },
    icon(isUsed ? "alert" : "check"),
    el("span", {}, isUsed ? "Still in use since the rotation: a client has not changed to the new secret yet. " : "Not used since the rotation. ", until),
  );
}

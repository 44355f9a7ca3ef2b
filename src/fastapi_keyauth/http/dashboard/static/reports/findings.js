// What an audit finds: its kinds in words, and those that the page sees by itself.

import { relative, secondsUntil, SOON } from "../format.js";

const SOON_DAYS = SOON / 86_400;

/** Kind -> [label, what to do]. In this order they are shown: first what ends or should end, then what keys may do. */
export const KINDS = {
  expires_soon: [`Expires within ${SOON_DAYS} days`, "Edit the key and give it a later expiry, or let it expire."],
  never_expires: ["Never expires", "Edit the key and give it an expiry."],
  unused: ["Unused for 90 days", "Revoke the key if no program needs it."],
  never_used: ["Never used", "Revoke the key if no program needs it."],
  exempt: ["Exempt from the policy for lifetimes", "Check that the key still needs the exemption."],
  old_secret: ["Old secret", "Rotate the key."],
  imported_secret: ["Imported secret", "Rotate the key: another system created its secret."],
  creator_not_member: ["Creator is no longer a member", "Rotate the key: its creator may still have the token."],
  admin: ["Holds admin", "Check that the program has to manage the keys of every owner."],
  all_scopes: ["Holds all scopes", "Edit the key and choose only the scopes that it needs."],
  no_limit: ["No rate limit", "Edit the key and give it a limit."],
  no_address_list: ["Usable from any address", "Edit the key and list the addresses of its program."],
};

/** What the page sees in a key without the server: [[kind, detail]]. */
export function seenIn(key) {
  const seen = [];
  if (key.expires_at && secondsUntil(key.expires_at) <= SOON) seen.push(["expires_soon", `It expires ${relative(key.expires_at)}.`]);
  if (key.exempt_from_policy) seen.push(["exempt", "It is exempt from the policy for lifetimes."]);
  return seen;
}

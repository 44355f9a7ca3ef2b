// The policy for the lifetime of keys, in words.

import { el } from "./dom.js";
import { count } from "./format.js";

const DAY_S = 86_400;
const UNITS = [[DAY_S, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];

/** "90 days", "36 hours". The largest unit of which it is a whole number. */
export function duration(seconds) {
  const [length, word] = UNITS.find(([each]) => seconds % each === 0);
  return count(seconds / length, word);
}

/** When keys end. `exempt`: the number of keys that are exempt from it. */
export function policyCard({ policy }, exempt) {
  return el("section", { class: "card policy" }, el("h2", {}, "Lifetimes"), policy ? rules(policy, exempt) : el("p", { class: "muted" }, "Keys have no maximum lifetime here: a key without an expiry works until it is revoked."));
}

function rules(policy, exempt) {
  const ttl = policy.default_ttl_s ?? policy.max_ttl_s;
  const rows = [
    ["Maximum lifetime", policy.max_ttl_s ? duration(policy.max_ttl_s) : "None"],
    ["Without an expiry", ttl ? `A new key ends after ${duration(ttl)}` : "A key works until it is revoked"],
    ["Unused keys", policy.unused_after_days ? `Disabled after ${count(policy.unused_after_days, "day")} without use` : "Not disabled"],
    ["Applies to", policy.applies_to_all ? "All keys" : "Keys created since the policy exists"],
    ["Exempt", exempt ? count(exempt, "key") : "No key"],
  ];
  return el("dl", { class: "details" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
}

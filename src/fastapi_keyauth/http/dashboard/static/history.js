// The changes of a key: what, by whom, from where.

import { api } from "./api.js";
import { scopeName } from "./badges.js";
import { el, written } from "./dom.js";
import { ago, count, exact } from "./format.js";
import { limitWords } from "./limits.js";
import { say } from "./messages.js";

const PAGE = 20;
const WORDS = { created: "Created", updated: "Updated", rotated: "Rotated", revoked: "Revoked", leaked: "Leaked" };
const FIELDS = {
  name: "Name", enabled: "Enabled", expires_at: "Expiry", scopes: "Scopes", hourly_limit: "Requests per hour",
  allowed_origins: "Allowed origins", allowed_ips: "Allowed addresses", metadata: "Metadata", limits: "Limits", hint: "Secret",
  exempt_from_policy: "Exempt from the policy for lifetimes",
};

/** Gives {node, load()}: a card that shows the newest changes, and more on demand. `userId`: the user of the page. */
export function history(id, userId, signal) {
  const line = (event) => lineOf(event, userId);
  const list = el("ol", { class: "history" });
  const more = el("button", { type: "button", class: "button", hidden: true, on: { click: loadMore } }, "Show older changes");
  let cursor = null;

  async function loadMore() {
    try {
      const page = await api.events(id, { limit: PAGE, cursor }, signal);
      list.append(...page.items.map(line));
      settle(page);
    } catch (error) {
      if (error.name !== "AbortError") say(error.message, "bad");
    }
  }

  function settle(page) {
    cursor = page.next_cursor;
    more.hidden = !cursor;
  }

  return {
    node: el("section", { class: "card" }, el("h2", {}, "History"), list, more),
    async load() {
      const page = await api.events(id, { limit: PAGE }, signal);
      list.replaceChildren(...page.items.map(line));
      settle(page);
    },
  };
}

function lineOf(event, userId) {
  const changes = Object.entries(event.changes).filter(([, change]) => change && typeof change === "object" && "to" in change);
  return el(
    "li",
    { class: `event event-${WORDS[event.event] ? event.event : "other"}` },
    el("p", {}, el("strong", {}, WORDS[event.event] ?? event.event), " ", ago(event.at)),
    changes.length > 0 && el("ul", { class: "changes" }, changes.map(changeLine)),
    event.reason && el("p", { class: "reason" }, "Reason: ", written(event.reason)),
    el("p", { class: "muted small" }, "by ", written(whoOf(event.actor, userId)), event.address && [" from ", written(event.address)]),
  );
}

/** Who did it, in words: `user:<id>`, `key:<id>`, `cli:<user>`, `code`, `policy`. */
export function whoOf(actor, userId) {
  if (actor === "policy") return "the policy for lifetimes";
  if (actor === "code") return "the application";
  if (actor === `user:${userId}`) return "you";
  return actor.replace(/^user:/, "").replace(/^cli:/, "the command line, ").replace(/^key:/, "the key ").replace(/^leak:/, "a leak report of ");
}

function changeLine([name, change]) {
  return el(
    "li",
    {},
    `${FIELDS[name] ?? name}: `,
    el("del", {}, written(shown(change.from, name))),
    el("span", { class: "hidden-text" }, " became "),
    el("span", { "aria-hidden": "true" }, " → "),
    el("ins", {}, written(shown(change.to, name))),
  );
}

function shown(value, name) {
  if (value === null || value === undefined || value === "") return "none";
  if (Array.isArray(value) && name === "limits") return value.length ? value.map((limit) => limitWords({ unit: "requests", ...limit })).join(", ") : "no limits";
  if (Array.isArray(value)) return value.length ? value.map(name === "scopes" ? scopeName : String).join(", ") : "none";
  if (typeof value === "object") return Object.keys(value).length ? count(Object.keys(value).length, "entry").replace("entrys", "entries") : "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string" && /^\d{4}-\d\d-\d\dT/.test(value)) return exact(new Date(value));
  return String(value);
}

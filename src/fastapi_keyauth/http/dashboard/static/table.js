// The table of keys. On a narrow screen the same rows are cards (page.css), so roles are given explicitly: CSS that turns a
// table into blocks would otherwise take its meaning away.

import { menuActionsFor } from "./actions.js";
import { listAddress } from "./address.js";
import { api } from "./api.js";
import { environmentTag, expiry, lastUse, scopeTags, statusBadge } from "./badges.js";
import { sparkline } from "./chart.js";
import { el, refill, replace, written } from "./dom.js";
import { ago } from "./format.js";
import { whoOf } from "./history.js";
import { icon } from "./icons.js";
import { menuButton } from "./menu.js";

const OWNER = ["Owner", "owner"];
/** Label, and the field to sort by. The first press on a time sorts by the newest. */
const COLUMNS = [["Key", "name"], ["Environment"], ["Scopes"], ["Status"], ["Created", "-created"], ["Last used", "-used"], ["Expires", "expires"], ["Last 24 hours"]];
const SKELETON_ROWS = 6;
const MOST_IDS = 200;

/**
 * Gives {node, show(keys), add(keys), loadUsage(signal), showSuspension(ownerId, isSuspended), update(key), remove(id),
 * showHead(filters)}. `sortBy(sort)` for a press on a column.
 */
export function keyTable(options, sortBy) {
  const columns = options.is_admin ? [COLUMNS[0], OWNER, ...COLUMNS.slice(1)] : COLUMNS;
  const body = el("tbody", { role: "rowgroup" });
  const usage = new Map();
  const suspended = new Set();
  const rows = new Map();
  const head = el("tr", { role: "row" });
  const node = el("table", { class: "keys", role: "table", "aria-label": "API keys" }, el("thead", { role: "rowgroup" }, head), body);

  // Beside the keys of one owner, its column says nothing: there is room for what it takes the place of.
  function showHead({ sort, owner }) {
    node.classList.toggle("has-owner", options.is_admin && !owner);
    node.classList.toggle("has-one-owner", options.is_admin && Boolean(owner));
    const fresh = el("tr", { role: "row" }, columns.map(([label, field]) => heading(label, field, sort, sortBy)), el("th", { scope: "col", role: "columnheader" }, el("span", { class: "hidden-text" }, "Actions")));
    refill(head, ...fresh.children);
  }

  function rowOf(key) {
    const row = keyRow(key, options, usage, suspended);
    rows.set(key.id, { row, key });
    return row;
  }

  function add(keys) {
    body.append(...keys.map(rowOf));
  }

  /** `found`: key id -> {admitted, refused}; ids that are not in it had no requests. */
  function setUsage(ids, found) {
    for (const id of ids) {
      usage.set(id, found.get(id) ?? null);
      const known = rows.get(id);
      known?.row.querySelector(".cell-usage").replaceChildren(usageOf(known.key, usage));
    }
  }

  function showSuspension(ownerId, isSuspended) {
    if (suspended.has(ownerId) === isSuspended) return;
    if (isSuspended) suspended.add(ownerId);
    else suspended.delete(ownerId);
    const concerned = [...rows.values()].filter(({ key }) => key.owner_id === ownerId);
    for (const { row, key } of concerned) row.querySelector(".cell-status").replaceChildren(statusBadge(key, isSuspended));
  }

  return {
    node,
    add,
    showHead,
    showSuspension,
    has: (id) => rows.has(id),
    /** Load what has not been asked for, in one request for many keys, and which of their owners are suspended. */
    async loadUsage(signal) {
      const wanted = [...rows.keys()].filter((id) => !usage.has(id));
      for (let at = 0; at < wanted.length; at += MOST_IDS) {
        const ids = wanted.slice(at, at + MOST_IDS);
        const found = await api.usageOfMany(ids, signal);
        setUsage(ids, new Map(found.items.map((item) => [item.id, item])));
        const owners = new Set(ids.map((id) => rows.get(id)?.key.owner_id));
        for (const owner of owners) showSuspension(owner, found.suspended_owners.includes(owner));
      }
    },
    show(keys) {
      rows.clear();
      refill(body, ...keys.map(rowOf));
    },
    showWaiting() {
      rows.clear();
      body.replaceChildren(...Array.from({ length: SKELETON_ROWS }, () => skeletonRow(columns.length)));
    },
    update(key) {
      const old = rows.get(key.id)?.row;
      if (old) replace(old, rowOf(key));
    },
    remove(id) {
      rows.get(id)?.row.remove();
      rows.delete(id);
    },
  };
}

function heading(label, field, sort, sortBy) {
  const name = field?.replace(/^-/, "");
  if (!field) return el("th", { scope: "col", role: "columnheader" }, label);
  const isSorted = sort.replace(/^-/, "") === name;
  const isDown = sort.startsWith("-");
  const next = isSorted ? (isDown ? name : `-${name}`) : field;
  return el(
    "th",
    { scope: "col", role: "columnheader", "aria-sort": isSorted ? (isDown ? "descending" : "ascending") : "none" },
    el("button", { type: "button", class: isSorted ? "sort-button is-sorted" : "sort-button", "data-focus": `sort-${name}`, on: { click: () => sortBy(next) } }, label, icon(isSorted && !isDown ? "up" : "down")),
  );
}

function keyRow(key, options, usage, suspended) {
  const cell = (label, name, ...content) => el("td", { role: "cell", "data-label": label, class: name }, content);
  const actions = () => menuActionsFor(key, options);
  // Those who have only keys of their own created them.
  const by = (options.acts_for_owners || options.is_admin) && key.created_by && whoOf(key.created_by, options.user_id);
  return el(
    "tr",
    { role: "row", class: key.status === "active" ? "" : "is-off", "data-key": key.id },
    el(
      "th",
      { role: "rowheader", scope: "row", class: "cell-name" },
      el("a", { href: `#/keys/${key.id}`, class: "key-name", title: key.name, "data-focus": `open-${key.id}` }, written(key.name)),
      el("code", { class: "key-hint" }, key.hint),
    ),
    options.is_admin && cell("Owner", "cell-owner", el("a", { class: "owner", href: listAddress({ owner: key.owner_id }), title: `All keys of ${key.owner_id}` }, written(key.owner_id))),
    cell("Environment", "cell-environment", environmentTag(key)),
    cell("Scopes", "cell-scopes", scopeTags(key.scopes)),
    cell("Status", "cell-status", statusBadge(key, suspended.has(key.owner_id))),
    cell("Created", "cell-time cell-created", ago(key.created_at), by && el("span", { class: "creator muted small", title: by }, "by ", written(by))),
    cell("Last used", "cell-time cell-used", lastUse(key)),
    cell("Expires", "cell-time cell-expires", expiry(key)),
    cell("Last 24 hours", "cell-usage", usageOf(key, usage)),
    cell("", "cell-actions", actions().length > 0 && menuButton(`Actions for ${key.name}`, actions, `actions-${key.id}`)),
  );
}

function usageOf(key, usage) {
  const known = usage.get(key.id);
  return known === undefined ? el("span", { class: "skeleton" }) : sparkline(known, key.hourly_limit);
}

function skeletonRow(columns) {
  const cells = Array.from({ length: columns + 1 }, () => el("td", { role: "cell" }, el("span", { class: "skeleton" })));
  return el("tr", { role: "row", class: "waiting", "aria-hidden": "true" }, cells);
}

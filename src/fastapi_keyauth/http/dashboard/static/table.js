// The table of keys. On a narrow screen the same rows are cards (page.css), so roles are said explicitly: CSS that turns
// a table into blocks takes its meaning away otherwise.

import { actionsFor } from "./actions.js";
import { environmentTag, expiry, lastUse, scopeTags, statusBadge } from "./badges.js";
import { sparkline } from "./chart.js";
import { el, replace, written } from "./dom.js";
import { ago } from "./format.js";
import { menuButton } from "./menu.js";

const COLUMNS = ["Key", "Environment", "Scopes", "Status", "Created", "Last used", "Expires", "Last 24 hours"];
const SKELETON_ROWS = 6;

/** Gives {node, show(keys), add(keys), setUsage(ids, usage), update(key)}. `changed(id, key|null)` after an action. */
export function keyTable(options, changed) {
  const body = el("tbody", { role: "rowgroup" });
  const usage = new Map();
  const rows = new Map();
  const node = el(
    "table",
    { class: "keys", role: "table", "aria-label": "API keys" },
    el(
      "thead",
      { role: "rowgroup" },
      el(
        "tr",
        { role: "row" },
        COLUMNS.map((name) => el("th", { scope: "col", role: "columnheader" }, name)),
        el("th", { scope: "col", role: "columnheader" }, el("span", { class: "hidden-text" }, "Actions")),
      ),
    ),
    body,
  );

  function rowOf(key) {
    const row = keyRow(key, options, usage, (next) => changed(key.id, next));
    rows.set(key.id, { row, key });
    return row;
  }

  function add(keys) {
    body.append(...keys.map(rowOf));
  }

  return {
    node,
    add,
    show(keys) {
      rows.clear();
      body.replaceChildren();
      add(keys);
    },
    showWaiting() {
      rows.clear();
      body.replaceChildren(...Array.from({ length: SKELETON_ROWS }, skeletonRow));
    },
    /** `found`: key id -> {admitted, refused}; ids that are not in it had no requests. */
    setUsage(ids, found) {
      for (const id of ids) {
        usage.set(id, found.get(id) ?? null);
        const known = rows.get(id);
        known?.row.querySelector(".cell-usage").replaceChildren(usageOf(known.key, usage));
      }
    },
    update(key) {
      const old = rows.get(key.id)?.row;
      if (old) replace(old, rowOf(key));
    },
  };
}

function keyRow(key, options, usage, changed) {
  const cell = (label, name, ...content) => el("td", { role: "cell", "data-label": label, class: name }, content);
  const actions = () => actionsFor(key, options, changed);
  return el(
    "tr",
    { role: "row", class: key.status === "active" ? "" : "is-off", "data-key": key.id },
    el(
      "th",
      { role: "rowheader", scope: "row", class: "cell-name" },
      el("a", { href: `#/keys/${key.id}`, class: "key-name", "data-focus": `open-${key.id}` }, written(key.name)),
      el("code", { class: "key-hint" }, key.hint),
      options.is_admin && el("span", { class: "owner" }, "of ", written(key.owner_id)),
    ),
    cell("Environment", "cell-environment", environmentTag(key)),
    cell("Scopes", "cell-scopes", scopeTags(key.scopes)),
    cell("Status", "cell-status", statusBadge(key)),
    cell("Created", "cell-time", ago(key.created_at)),
    cell("Last used", "cell-time", lastUse(key)),
    cell("Expires", "cell-time", expiry(key)),
    cell("Last 24 hours", "cell-usage", usageOf(key, usage)),
    cell("", "cell-actions", actions().length > 0 && menuButton(`Actions for ${key.name}`, actions, `actions-${key.id}`)),
  );
}

function usageOf(key, usage) {
  const known = usage.get(key.id);
  return known === undefined ? el("span", { class: "skeleton" }) : sparkline(known, key.hourly_limit);
}

function skeletonRow() {
  const cells = Array.from({ length: COLUMNS.length + 1 }, () => el("td", { role: "cell" }, el("span", { class: "skeleton" })));
  return el("tr", { role: "row", class: "waiting", "aria-hidden": "true" }, cells);
}

// A key's own page: its details, its usage, its history.

import { actionsFor } from "./actions.js";
import { api } from "./api.js";
import { addressOf, lastPlace, listAddress } from "./address.js";
import { environmentTag, expiry, lastUse, scopeTags, statusBadge } from "./badges.js";
import { byDay, HOURS, usageChart } from "./chart.js";
import { copyIcon } from "./clipboard.js";
import { el, replace, written } from "./dom.js";
import { exactly } from "./format.js";
import { history, whoOf } from "./history.js";
import { icon } from "./icons.js";
import { limitsCard } from "./key-limits.js";
import { onChangeOfKey, onReturn } from "./live.js";
import { say } from "./messages.js";
import { ownerName } from "./owners.js";
import { secretsCard } from "./secrets.js";

const LAST_HOURS = 168;

/** Gives {node, title, focus, close()}. */
export function keyView(id, options, setTitle) {
  const leaving = new AbortController();
  const { signal } = leaving;
  const past = history(id, options.user_id, signal);
  const heading = el("h1", { tabindex: "-1" }, "API key");
  let drawn = "";
  let shown = null;
  let isSuspended = false;
  let nameOfOwner = null;
  let under = el("p", { class: "under" });
  let buttons = el("div", { class: "buttons" });
  let facts = el("div", { class: "card", "aria-busy": "true" }, el("span", { class: "skeleton" }));
  let secrets = el("div");
  const limits = limitsCard(id, signal, (owner) => {
    isSuspended = Boolean(owner.suspended_at);
    showUnder();
    if (owner.name === nameOfOwner) return;
    nameOfOwner = owner.name;
    facts = replace(facts, factsOf(shown, options, nameOfOwner));
  });
  const byDayLink = el("a", { class: "small", hidden: true }, "Usage by day");
  const usage = el("div", { class: "card" }, el("div", { class: "card-head" }, el("h2", {}, "Usage in the last 7 days"), byDayLink), el("span", { class: "skeleton skeleton-chart" }));
  const node = el(
    "div",
    { class: "view" },
    el("a", { href: lastPlace().address, class: "back" }, icon("back"), lastPlace().label),
    el("div", { class: "view-head" }, el("div", {}, heading, under), buttons),
    limits.suspension,
    el("div", { class: "columns" }, el("div", { class: "stack" }, usage, past.node), el("div", { class: "stack" }, facts, limits.node, secrets)),
  );

  function show(key) {
    drawn = JSON.stringify(key);
    shown = key;
    setTitle(key.name);
    heading.replaceChildren(written(key.name));
    byDayLink.href = addressOf("#/usage", { owner: (options.is_admin || options.acts_for_owners) && key.owner_id, key: id });
    byDayLink.hidden = false;
    showUnder();
    buttons = replace(buttons, buttonsOf(key));
    facts = replace(facts, factsOf(key, options, nameOfOwner));
    secrets = replace(secrets, secretsCard(key));
    limits.load(key);
  }

  function showUnder() {
    const hint = el("span", { class: "with-copy" }, el("code", { class: "key-hint" }, shown.hint), copyIcon("Copy the hint", shown.hint));
    under = replace(under, el("p", { class: "under" }, statusBadge(shown, isSuspended), environmentTag(shown), hint));
  }

  // While nothing has changed, nothing is drawn again: a selection and the focus stay where they are.
  function showIfChanged(key) {
    const text = JSON.stringify(key);
    if (text !== drawn) show(key);
  }

  function buttonsOf(key) {
    const all = actionsFor(key, options).map((action) =>
      el(
        "button",
        { type: "button", class: action.isDanger ? "button button-quiet-danger" : "button", "data-focus": action.name, on: { click: action.run } },
        icon(action.icon),
        action.label,
      ),
    );
    return el("div", { class: "buttons" }, all);
  }

  async function changed(key) {
    try {
      show(key ?? (await api.get(id, signal)));
      // The button that was pressed may be gone: a revoked key has none.
      if (document.activeElement === document.body) heading.focus();
      await past.load();
    } catch (error) {
      failed(error);
    }
  }

  function failed(error) {
    if (error.name !== "AbortError") say(error.message, "bad");
  }

  async function load() {
    try {
      const key = await api.get(id, signal);
      show(key);
      const [{ items }] = await Promise.all([api.usage(id, LAST_HOURS, signal), past.load()]);
      const hasAny = items.some((item) => item.admitted || item.refused);
      usage.lastChild.replaceWith(hasAny ? usageChart(items, { scale: HOURS, period: "in the last 7 days", limit: key.hourly_limit, more: byDay(items) }) : el("p", { class: "muted" }, "No requests in the last 7 days."));
    } catch (error) {
      if (error.status === 404) node.replaceChildren(...missing());
      else failed(error);
    }
  }

  // Quietly: a failure is said when the user does something.
  const refresh = () => api.get(id, signal).then((key) => showIfChanged(key), () => {});
  onReturn(refresh, signal);
  onChangeOfKey((changedId, key) => changedId === id && changed(key), signal);
  load();
  return { node, title: "API key", focus: () => heading.focus(), close: () => leaving.abort() };
}

function missing() {
  return [
    el("div", { class: "card nothing" }, icon("search"), el("h1", {}, "Key not found"), el("p", {}, "It does not exist, or it belongs to somebody else."), el("a", { href: listAddress(), class: "button" }, "All API keys")),
  ];
}

function creatorOf(key, options) {
  const all = listAddress({ owner: (options.is_admin || options.acts_for_owners) && key.owner_id, creator: key.created_by, status: "all" });
  return el("span", { class: "muted small" }, "by ", el("a", { href: all, title: "All keys with this creator" }, written(whoOf(key.created_by, options.user_id))));
}

function factsOf(key, options, nameOfOwner) {
  const list = (values, none) => (values.length ? el("ul", { class: "plain" }, values.map((value) => el("li", {}, written(value)))) : el("span", { class: "muted" }, none));
  const metadata = Object.keys(key.metadata).length > 0;
  const rows = [
    ["Key ID", el("span", { class: "with-copy" }, el("code", {}, key.id), copyIcon("Copy the key ID", key.id))],
    !options.is_admin && options.acts_for_owners && ["Owner", written(ownerName(options, key.owner_id))],
    options.is_admin && ["Owner", [el("a", { href: listAddress({ owner: key.owner_id }) }, written(nameOfOwner ?? key.owner_id)), nameOfOwner && el("code", { class: "key-hint" }, key.owner_id)]],
    ["Scopes", scopeTags(key.scopes, Infinity)],
    ["Created", [exactly(key.created_at), key.created_by && creatorOf(key, options)]],
    ["Last used", lastUse(key)],
    ["Expires", [expiry(key), key.expires_at && el("span", { class: "muted small" }, exactly(key.expires_at)), key.exempt_from_policy && el("span", { class: "muted small" }, "Exempt from the policy for lifetimes")]],
    key.revoked_at && ["Revoked", exactly(key.revoked_at)],
    ["Allowed origins", list(key.allowed_origins, "No web page, except the service's own")],
    ["Allowed addresses", list(key.allowed_ips, "Any")],
    metadata && ["Metadata", el("pre", { class: "metadata", tabindex: "0" }, JSON.stringify(key.metadata, null, 2))],
  ].filter(Boolean);
  return el(
    "section",
    { class: "card" },
    el("h2", {}, "Details"),
    el("dl", { class: "details" }, rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))),
  );
}

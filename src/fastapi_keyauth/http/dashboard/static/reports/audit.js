// The view for a review: when keys end, which are not used, and what else an audit finds about active keys.

import { menuActionsFor } from "../actions.js";
import { addressOf, askedInAddress, rememberAddress } from "../address.js";
import { api } from "../api.js";
import { expiry, lastUse } from "../badges.js";
import { el, refill, written } from "../dom.js";
import { count, number } from "../format.js";
import { icon } from "../icons.js";
import { keyPages, MOST_IN_ALL } from "../key-pages.js";
import { policyCard } from "../lifetimes.js";
import { failure } from "../list-empty.js";
import { onChangeOfKey, onCreationOfKey } from "../live.js";
import { menuButton } from "../menu.js";
import { navigation } from "../navigation.js";
import { listedOwner, ownerChoice } from "../owners.js";
import { KINDS, seenIn } from "./findings.js";

const MOST_ON_A_PAGE = 200;
const MOST_ROWS = 200;

/** Gives {node, title, name, focus(), readAddress(), close()}. */
export function auditView(options) {
  const leaving = new AbortController();
  let asking = new AbortController();
  let asked = readAsked();
  let loaded = null;
  const heading = el("h1", { tabindex: "-1" }, "Audit");
  const lead = el("p", { class: "lead" }, "What a security review would ask about your active keys.");
  const views = navigation("audit");
  const owners = ownerChoice(options, (owner) => {
    asked = { ...asked, owner };
    rememberAddress(address(), "Audit", true);
    load();
  });
  const policy = el("div");
  const kinds = el("nav", { class: "card kinds", "aria-label": "Findings" });
  const card = el("section", { class: "card findings" });
  const status = el("p", { class: "hidden-text", role: "status" });
  const node = el(
    "div",
    { class: "view" },
    views.node,
    el("div", { class: "view-head" }, el("div", {}, heading, lead), owners?.node),
    el("div", { class: "audit" }, el("div", { class: "stack" }, kinds, policy), card),
    status,
  );

  function readAsked() {
    const found = askedInAddress();
    const finding = found.get("finding") ?? "";
    return { owner: listedOwner(options, found.get("owner") ?? ""), finding: Object.hasOwn(KINDS, finding) ? finding : "" };
  }

  const address = (finding = asked.finding) => addressOf("#/audit", { finding, owner: asked.owner });

  async function load() {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    views.show(asked.owner);
    owners?.show(asked.owner);
    if (!loaded) card.replaceChildren(el("span", { class: "skeleton" }));
    card.setAttribute("aria-busy", "true");
    try {
      const found = await findProblems(asked.owner ? { owner_id: asked.owner } : {}, signal);
      if (signal.aborted) return;
      loaded = found;
      show();
    } catch (error) {
      if (error.name === "AbortError") return;
      kinds.hidden = true;
      card.replaceChildren(el("div", { class: "nothing" }, failure("The audit cannot be shown", error.message, load)));
    } finally {
      if (!signal.aborted) card.removeAttribute("aria-busy");
    }
  }

  function show() {
    const { keys, problems, isCutOff } = loaded;
    const having = (kind) => keys.filter(({ id }) => problems.get(id)?.some(([found]) => found === kind));
    const found = Object.keys(KINDS).map((kind) => [kind, having(kind)]);
    kinds.hidden = !keys.length;
    refill(kinds, el("ul", {}, kindItem("", keys.filter(({ id }) => problems.has(id)).length), found.map(([kind, those]) => (those.length || kind === asked.finding) && kindItem(kind, those.length))));
    policy.replaceChildren(policyCard(options, having("exempt").length));
    const shown = asked.finding ? having(asked.finding) : keys.filter(({ id }) => problems.has(id));
    refill(card, ...(keys.length ? findingsOf(shown, problems, isCutOff) : [noKeys()]));
    status.textContent = `${labelOf(asked.finding)}: ${count(shown.length, "key")}`;
  }

  function kindItem(kind, many) {
    return el("li", {}, el("a", { href: address(kind), "aria-current": kind === asked.finding && "true", "data-focus": `kind-${kind}` }, el("span", {}, labelOf(kind)), " ", el("span", { class: "count" }, number(many), el("span", { class: "hidden-text" }, many === 1 ? " key" : " keys"))));
  }

  function findingsOf(shown, problems, isCutOff) {
    const advice = KINDS[asked.finding]?.[1] ?? "";
    const rows = shown.slice(0, MOST_ROWS).map((key) => row(key, problems.get(key.id).filter(([kind]) => !asked.finding || kind === asked.finding)));
    return [
      el("h2", {}, labelOf(asked.finding)),
      el("p", { class: "muted" }, shown.length ? `${count(shown.length, "key")}. ${advice}` : "No active key has this finding."),
      el("ul", { class: "plain-rows" }, rows),
      shown.length > MOST_ROWS && el("p", { class: "muted small" }, `The newest ${number(MOST_ROWS)} keys are shown. Choose a finding to see fewer.`),
      isCutOff && el("p", { class: "muted small" }, `Only the newest ${number(MOST_IN_ALL)} keys are checked here. The command "keyauth audit" checks all keys.`),
    ].filter(Boolean);
  }

  function row(key, found) {
    const actions = () => menuActionsFor(key, options);
    return el(
      "li",
      { class: "finding", "data-key": key.id },
      el(
        "div",
        {},
        el("a", { href: `#/keys/${key.id}`, class: "key-name", "data-focus": `open-${key.id}` }, written(key.name)),
        el("p", { class: "small muted" }, el("code", { class: "key-hint" }, key.hint), options.is_admin && [" · ", written(key.owner_id)]),
        el("ul", { class: "details-of-finding" }, found.map(([, detail]) => el("li", {}, detail))),
        el("p", { class: "small muted" }, "Last used: ", lastUse(key),  " · ", ending(key)),
      ),
      actions().length > 0 && menuButton(`Actions for ${key.name}`, actions, `actions-${key.id}`),
    );
  }

  onChangeOfKey(() => load(), leaving.signal);
  onCreationOfKey(() => load(), leaving.signal);
  rememberAddress(address(), "Audit", false);
  load();
  return {
    node,
    title: "Audit",
    name: "audit",
    focus: () => heading.focus(),
    readAddress() {
      const before = asked;
      asked = readAsked();
      rememberAddress(address(), "Audit", false);
      // Another finding is about the same keys.
      if (loaded && before.owner === asked.owner) show();
      else load();
    },
    close() {
      asking.abort();
      leaving.abort();
    },
  };
}

const labelOf = (kind) => KINDS[kind]?.[0] ?? "All findings";

// One that is near says by itself what it is.
function ending(key) {
  const node = expiry(key);
  return node.classList.contains("expiry") ? node : ["Expires: ", node];
}

function noKeys() {
  return el("div", { class: "nothing" }, icon("key"), el("h2", {}, "No active keys"), el("p", {}, "Findings are about active keys, and there are none yet."), el("a", { class: "button", href: "#/" }, "To the keys"));
}

/** All active keys, and by id what was found about them: [[kind, detail]]. */
async function findProblems(query, signal) {
  const pages = keyPages({ ...query, status: "active" }, signal);
  const [items] = await Promise.all([auditAll(query, signal), pages.all(() => {})]);
  const problems = new Map();
  const add = (id, found) => problems.set(id, [...(problems.get(id) ?? []), ...found]);
  for (const key of pages.keys) if (seenIn(key).length) add(key.id, seenIn(key));
  for (const { key_id: id, finding, detail } of items) add(id, [[finding, detail]]);
  return { keys: pages.keys, problems, isCutOff: pages.isCutOff };
}

async function auditAll(query, signal) {
  const found = [];
  let cursor = null;
  for (let pages = 0; pages < MOST_IN_ALL / MOST_ON_A_PAGE && (cursor || !pages); pages += 1) {
    const page = await api.audit({ ...query, limit: MOST_ON_A_PAGE, ...(cursor && { cursor }) }, signal);
    found.push(...page.items);
    cursor = page.next_cursor;
  }
  return found;
}

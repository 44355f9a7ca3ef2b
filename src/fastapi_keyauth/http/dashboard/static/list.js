// The page's first view: all keys, filters, the way to a new one.

import { startNewKey } from "./actions.js";
import { filtersInAddress, NEWEST_FIRST, rememberFilters } from "./address.js";
import { api } from "./api.js";
import { el } from "./dom.js";
import { filterBar, queryOf } from "./filters.js";
import { count } from "./format.js";
import { icon } from "./icons.js";
import { keyPages, sorted } from "./key-pages.js";
import { countInWords, failure, firstVisit, noMatch } from "./list-empty.js";
import { onChangeInOtherTab } from "./live.js";
import { say } from "./messages.js";
import { matchesLocally } from "./search-text.js";
import { keyTable } from "./table.js";

const FIRST = 50;
const STEP = 100;
const MOST_IDS = 200;
const NEARLY_SEEN = "600px";

/** Gives {node, title, focus(), close(), readAddress()}. */
export function listView(options) {
  const leaving = new AbortController();
  let asking = new AbortController();
  let filters = { ...filtersInAddress(options.key_prefix), local: "" };
  let pages = null;
  let rows = [];
  let shown = 0;

  const bar = filterBar(options, filters, (next, isStep) => {
    filters = next;
    rememberFilters(filters, isStep);
    load();
  });
  const table = keyTable(options, onChanged, bar.sortBy);
  const result = el("p", { class: "result-line", role: "status" });
  const more = el("button", { type: "button", class: "button", on: { click: () => grow(true) } }, "Load more");
  const all = el("button", { type: "button", class: "button", on: { click: showAll } }, "Load all");
  const moreButtons = el("div", { class: "buttons", hidden: true }, more, all);
  const nothing = el("div", { class: "nothing", hidden: true });
  const foot = el("div", { class: "table-foot" }, result, moreButtons);
  const card = el("div", { class: "card table-card" }, table.node, nothing, foot);
  const heading = el("h1", { tabindex: "-1" }, "API keys");
  const newButton = () =>
    el("button", { type: "button", class: "button button-primary", "data-focus": "new", on: { click: () => startNewKey(options, onCreated) } }, icon("plus"), "Create key");
  const mainButton = newButton();
  const lead = el("p", { class: "lead" }, "A key lets a program call the API in your name. Create one for each program.");
  const node = el("div", { class: "view" }, el("div", { class: "view-head" }, el("div", {}, heading, lead), mainButton), bar.node, card);
  // Whoever scrolls to the end gets more without a press.
  const end = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && grow(false), { rootMargin: NEARLY_SEEN });

  /** Start from the beginning; `least`: rows that are to be there again. */
  async function load(least = FIRST) {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    pages = keyPages(queryOf(filters), signal);
    end.disconnect();
    if (!rows.length) table.showWaiting();
    table.showSort(filters.sort);
    await busy(signal, async () => {
      await pages.next(FIRST);
      if (filters.sort !== NEWEST_FIRST || filters.local) await loadRest();
      while (pages.keys.length < least && !pages.isComplete) await pages.next();
      shown = Math.max(FIRST, Math.min(least, pages.keys.length));
      arrange();
      table.show(rows.slice(0, shown));
      settle();
      await loadUsage(signal);
    });
  }

  const loadRest = () => pages.all((known) => (result.textContent = `Loading: ${count(known, "key")} so far`));

  function arrange() {
    const found = filters.local ? pages.keys.filter((key) => matchesLocally(key, filters.local)) : pages.keys;
    rows = sorted(found, filters.sort);
  }

  async function grow(isPressed) {
    if (card.hasAttribute("aria-busy") || moreButtons.hidden) return;
    const { signal } = asking;
    const first = shown;
    await busy(signal, async () => {
      if (shown >= rows.length) await pages.next();
      arrange();
      shown = Math.min(rows.length, shown + STEP);
      table.add(rows.slice(first, shown));
      settle();
      // The button may be gone now; the keyboard goes on at the first new row.
      if (isPressed && moreButtons.hidden && rows[first]) focusRow(rows[first].id);
      await loadUsage(signal);
    });
  }

  async function showAll() {
    const { signal } = asking;
    const first = shown;
    await busy(signal, async () => {
      await loadRest();
      arrange();
      shown = rows.length;
      table.add(rows.slice(first));
      settle();
      if (rows[first]) focusRow(rows[first].id);
      await loadUsage(signal);
    });
  }

  const focusRow = (id) => card.querySelector(`[data-focus="open-${id}"]`)?.focus();

  async function busy(signal, work) {
    card.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      failed(error);
    } finally {
      if (!signal.aborted) card.removeAttribute("aria-busy");
    }
    if (signal.aborted || moreButtons.hidden) return;
    // Seen anew by the observer: the end may still be in sight.
    end.disconnect();
    end.observe(foot);
  }

  function settle() {
    shown = Math.min(shown, rows.length);
    const hasMore = shown < rows.length || (!pages.isComplete && !pages.isCutOff);
    moreButtons.hidden = !hasMore;
    nothing.hidden = rows.length > 0;
    table.node.hidden = rows.length === 0;
    result.textContent = rows.length || bar.isFiltered() ? countInWords(shown, rows.length, pages) : "";
    // Without any key there is nothing to search.
    bar.node.hidden = rows.length === 0 && !bar.isFiltered();
    foot.classList.toggle("is-empty", !rows.length);
    if (rows.length) return;
    nothing.replaceChildren(...(bar.isFiltered() ? noMatch(bar.clear) : firstVisit(newButton(), bar.showRevoked)));
  }

  // One request for many keys.
  async function loadUsage(signal) {
    const wanted = table.withoutUsage();
    for (let at = 0; at < wanted.length; at += MOST_IDS) {
      const ids = wanted.slice(at, at + MOST_IDS);
      const { items } = await api.usageOfMany(ids, signal);
      table.setUsage(ids, new Map(items.map((item) => [item.id, item])));
    }
  }

  function failed(error) {
    if (error.name === "AbortError") return;
    if (rows.length) {
      say(error.message, "bad");
      return;
    }
    table.node.hidden = true;
    nothing.hidden = false;
    nothing.replaceChildren(...failure(error, () => { table.node.hidden = false; nothing.hidden = true; load(); }));
  }

  async function onCreated(key) {
    say(`${key.name} is ready.`);
    await load();
    // The button of the empty list is gone by now.
    if (document.activeElement === document.body) mainButton.focus();
  }

  // The row alone: whoever revokes a key in the list of active ones still sees what became of it.
  async function onChanged(id, key) {
    try {
      const now = key ?? (await api.get(id, leaving.signal));
      pages.replace(now);
      rows = rows.map((each) => (each.id === id ? now : each));
      table.update(now);
    } catch (error) {
      if (error.status === 404) table.remove(id);
      else failed(error);
    }
  }

  onChangeInOtherTab((id) => table.has(id) && onChanged(id, null), leaving.signal);
  rememberFilters(filters, false);
  load();
  return {
    node,
    title: "API keys",
    isList: true,
    focus: () => heading.focus(),
    /** The address was changed by Back, Forward or a link. */
    readAddress() {
      filters = { ...filtersInAddress(options.key_prefix), local: "" };
      bar.show(filters);
      rememberFilters(filters, false);
      load();
    },
    close() {
      bar.stop();
      end.disconnect();
      asking.abort();
      leaving.abort();
    },
  };
}

// The page's first view: all keys, filters, the way to a new one.

import { NEWEST_FIRST, rememberFilters } from "./address.js";
import { api } from "./api.js";
import { el } from "./dom.js";
import { filterBar, filtersOf, queryOf } from "./filters.js";
import { count } from "./format.js";
import { arranged, keyPages } from "./key-pages.js";
import { countInWords, failure, firstVisit, noMatch } from "./list-empty.js";
import { listFoot } from "./list-foot.js";
import { listHead } from "./list-head.js";
import { onChangeOfKey, onCreationOfKey } from "./live.js";
import { say } from "./messages.js";
import { ownerCard } from "./owner-card.js";
import { keyTable } from "./table.js";

const FIRST = 50;
const STEP = 100;
const NEARLY_SEEN = "600px";

/** Gives {node, title, focus(), close(), readAddress()}. */
export function listView(options) {
  const leaving = new AbortController();
  let asking = new AbortController();
  let filters = filtersOf(options);
  let pages = null;
  let rows = [];
  let shown = 0;
  let growing = Promise.resolve();
  let loading = Promise.resolve();

  const bar = filterBar(options, filters, (next, isStep) => {
    filters = next;
    rememberFilters(filters, isStep);
    load();
  });
  const head = listHead(options, (owner) => {
    filters = { ...filters, owner };
    bar.show(filters);
    rememberFilters(filters, true);
    load();
  });
  const table = keyTable(options, bar.sortBy);
  const owner = ownerCard(options, leaving.signal, {
    onOwner: ({ owner_id: id, suspended_at: since }) => table.showSuspension(id, Boolean(since)),
    onEditing(isEditing) {
      filters = { ...filters, isEditing };
      rememberFilters(filters, false);
    },
  });
  const nothing = el("div", { class: "nothing", hidden: true });
  const foot = listFoot((isAll) => grow(true, isAll));
  const card = el("div", { class: "card table-card" }, table.node, nothing, foot.node);
  const node = el("div", { class: "view" }, head.node, owner.node, bar.node, card);
  // Whoever scrolls to the end gets more without a press.
  const end = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && grow(false), { rootMargin: NEARLY_SEEN });

  /** Start from the beginning; `least`: rows that are to be there again. */
  async function load(least = FIRST) {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    head.show(filters.owner);
    owner.load(ownerShown(), filters.isEditing);
    pages = keyPages(queryOf(filters), signal);
    end.disconnect();
    if (!rows.length) table.showWaiting();
    table.showHead(filters);
    loading = busy(signal, async () => {
      await pages.next(FIRST);
      if (filters.sort !== NEWEST_FIRST || filters.local) await loadRest();
      while (pages.keys.length < least && !pages.isComplete) await pages.next();
      shown = Math.max(FIRST, Math.min(least, pages.keys.length));
      arrange();
      table.show(rows.slice(0, shown));
      settle();
      await table.loadUsage(signal);
    });
    await loading;
  }

  // An administrator who has not chosen an owner sees the keys of all.
  const ownerShown = () => filters.owner || (options.is_admin ? "" : options.user_id);
  const loadRest = () => pages.all((known) => foot.say(`Loading: ${count(known, "key")} so far`));
  const arrange = () => (rows = arranged(pages.keys, filters));

  function grow(isPressed, isAll = false) {
    if (!foot.hasMore() || (card.hasAttribute("aria-busy") && !isPressed)) return;
    // A press while more keys are being loaded is served after them.
    growing = growing.then(() => addRows(isPressed, isAll));
  }

  async function addRows(isPressed, isAll) {
    if (!foot.hasMore()) return;
    const { signal } = asking;
    const first = shown;
    await busy(signal, async () => {
      if (isAll) await loadRest();
      else if (shown >= rows.length) await pages.next();
      arrange();
      shown = isAll ? rows.length : Math.min(rows.length, shown + STEP);
      table.add(rows.slice(first, shown));
      settle();
      // The button may be gone now; the keyboard goes on at the first new row.
      if (isPressed && !foot.hasMore() && rows[first]) focusRow(rows[first].id);
      await table.loadUsage(signal);
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
    if (signal.aborted || !foot.hasMore()) return;
    // Observe it again: the end may still be in sight.
    end.disconnect();
    end.observe(foot.node);
  }

  function settle() {
    shown = Math.min(shown, rows.length);
    foot.offer(shown < rows.length || (!pages.isComplete && !pages.isCutOff));
    nothing.hidden = rows.length > 0;
    table.node.hidden = rows.length === 0;
    foot.say(rows.length || bar.isFiltered() ? countInWords(shown, rows.length, pages, ownerShown() && !bar.isFiltered() ? options.max_keys : Infinity) : "");
    // Without any key there is nothing to search.
    bar.node.hidden = rows.length === 0 && !bar.isFiltered();
    foot.node.classList.toggle("is-empty", !rows.length);
    if (rows.length) return;
    nothing.replaceChildren(...(bar.isFiltered() ? noMatch(bar.clear) : firstVisit(head.newButton(), bar.showRevoked)));
  }

  function failed(error) {
    if (error.name === "AbortError") return;
    if (rows.length) return say(error.message, "bad");
    table.node.hidden = true;
    nothing.hidden = false;
    nothing.replaceChildren(...failure("The keys cannot be shown", error.message, () => { table.node.hidden = false; nothing.hidden = true; load(); }));
  }

  async function onCreated() {
    await load();
    // The button of the empty list is gone by now.
    if (document.activeElement === document.body) head.focusButton();
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

  async function onChange(id, key) {
    const isLoading = card.hasAttribute("aria-busy");
    if (table.has(id)) await onChanged(id, key);
    if (!isLoading) return;
    // Keys that are being loaded may have been read before the change.
    let known;
    while (known !== loading) await (known = loading);
    if (table.has(id)) await onChanged(id, null);
  }

  onChangeOfKey(onChange, leaving.signal);
  onCreationOfKey(onCreated, leaving.signal);
  rememberFilters(filters, false);
  load();
  return {
    node,
    title: "API keys",
    name: "list",
    focus: head.focus,
    /** The address was changed by Back, Forward or a link. */
    readAddress() {
      filters = filtersOf(options);
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

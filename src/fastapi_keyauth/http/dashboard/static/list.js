// The page's first view: all keys, filters, the way to a new one.

import { startNewKey } from "./actions.js";
import { api } from "./api.js";
import { el } from "./dom.js";
import { choices } from "./fields.js";
import { count } from "./format.js";
import { icon } from "./icons.js";
import { say } from "./messages.js";
import { keyTable } from "./table.js";

const PAGE = 50;
const UNUSED_DAYS = 90;
const TYPING_MS = 250;
const STATUSES = [["", "All"], ["active", "Active"], ["disabled", "Disabled"], ["expired", "Expired"], ["revoked", "Revoked"]];

/** Gives {node, title, focus, close()}. */
export function listView(options) {
  const leaving = new AbortController();
  let asking = new AbortController();
  let cursor = null;
  let shown = 0;

  const table = keyTable(options, onChanged);
  const search = el("input", { type: "search", class: "input", "aria-label": "Search by name", placeholder: "Search by name", autocomplete: "off", spellcheck: "false" });
  const status = choices("status", STATUSES, "", () => load());
  const unused = el("input", { type: "checkbox" });
  const result = el("p", { class: "result-line", role: "status" });
  const more = el("button", { type: "button", class: "button", hidden: true, on: { click: loadMore } }, "Load more");
  const nothing = el("div", { class: "nothing", hidden: true });
  const foot = el("div", { class: "table-foot" }, result, more);
  const card = el("div", { class: "card table-card" }, table.node, nothing, foot);
  const toolbar = el(
    "div",
    { class: "toolbar", role: "search" },
    el("div", { class: "search" }, icon("search"), search),
    el("fieldset", { class: "bare" }, el("legend", { class: "hidden-text" }, "Status"), status.node),
    el("label", { class: "check" }, unused, `Unused for ${UNUSED_DAYS} days`),
  );
  const heading = el("h1", { tabindex: "-1" }, "API keys");
  const makeOne = newButton();
  const node = el(
    "div",
    { class: "view" },
    el(
      "div",
      { class: "view-head" },
      el("div", {}, heading, el("p", { class: "lead" }, "A key lets a program call the API in your name. Give each program one of its own.")),
      makeOne,
    ),
    toolbar,
    card,
  );

  let typing;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(load, TYPING_MS);
  });
  unused.addEventListener("change", load);

  function newButton() {
    return el(
      "button",
      { type: "button", class: "button button-primary", "data-focus": "new", on: { click: () => startNewKey(options, onCreated) } },
      icon("plus"),
      "New API key",
    );
  }

  function query() {
    return {
      limit: PAGE,
      ...(status.read() && { status: status.read() }),
      ...(search.value.trim() && { q: search.value.trim() }),
      ...(unused.checked && { unused_for_days: UNUSED_DAYS }),
    };
  }

  const isFiltered = () => Object.keys(query()).length > 1;

  async function load() {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    if (!shown) table.showWaiting();
    card.setAttribute("aria-busy", "true");
    try {
      const page = await api.list(query(), signal);
      shown = page.items.length;
      table.show(page.items);
      settle(page);
      await loadUsage(page.items, signal);
    } catch (error) {
      failed(error);
    } finally {
      if (!signal.aborted) card.removeAttribute("aria-busy");
    }
  }

  async function loadMore() {
    const { signal } = asking;
    more.setAttribute("aria-disabled", "true");
    try {
      const page = await api.list({ ...query(), cursor }, signal);
      const first = page.items[0];
      shown += page.items.length;
      table.add(page.items);
      settle(page);
      // The button may be gone now; those who use the keyboard go on where the new rows begin.
      if (more.hidden && first) card.querySelector(`[data-focus="open-${first.id}"]`)?.focus();
      await loadUsage(page.items, signal);
    } catch (error) {
      failed(error);
    } finally {
      more.removeAttribute("aria-disabled");
    }
  }

  function settle(page) {
    cursor = page.next_cursor;
    more.hidden = !cursor;
    nothing.hidden = shown > 0;
    table.node.hidden = shown === 0;
    result.textContent = shown ? `${count(shown, "key")}${cursor ? " so far" : ""}` : "";
    // A first visit has nothing to search in.
    toolbar.hidden = shown === 0 && !isFiltered();
    foot.classList.toggle("is-empty", !shown);
    if (!shown) nothing.replaceChildren(...(isFiltered() ? noMatch() : firstVisit()));
  }

  function noMatch() {
    result.textContent = "No keys";
    const clear = () => {
      search.value = "";
      unused.checked = false;
      status.node.querySelector("input").checked = true;
      load();
      search.focus();
    };
    return [
      icon("search"),
      el("h2", {}, "No key fits"),
      el("p", {}, "No key has this name and this state."),
      el("button", { type: "button", class: "button", on: { click: clear } }, "Clear the filters"),
    ];
  }

  function firstVisit() {
    return [
      icon("key"),
      el("h2", {}, "No keys yet"),
      el("p", {}, "Make one for each program that calls the API, and name it after the place where it runs. Then any of them can be replaced or revoked without touching the others."),
      el("p", { class: "muted" }, "You see a key once, when it is made. Copy it into your secret manager or your environment."),
      newButton(),
    ];
  }

  // One request for the whole page of keys.
  async function loadUsage(keys, signal) {
    if (!keys.length) return;
    const ids = keys.map((key) => key.id);
    const { items } = await api.usageOfMany(ids, signal);
    table.setUsage(ids, new Map(items.map((item) => [item.id, item])));
  }

  function failed(error) {
    if (error.name === "AbortError") return;
    if (!shown) {
      table.node.hidden = true;
      nothing.hidden = false;
      nothing.replaceChildren(
        icon("alert"),
        el("h2", {}, "The keys cannot be shown"),
        el("p", {}, error.message),
        el("button", { type: "button", class: "button", on: { click: () => { table.node.hidden = false; nothing.hidden = true; load(); } } }, "Try again"),
      );
    } else {
      say(error.message, "bad");
    }
  }

  async function onCreated(key) {
    say(`${key.name} is ready.`);
    await load();
    // The button of the empty list is gone by now.
    if (document.activeElement === document.body) makeOne.focus();
  }

  // The row alone: whoever disables a key in the list of active ones still sees what became of it.
  async function onChanged(id, key) {
    try {
      table.update(key ?? (await api.get(id, leaving.signal)));
    } catch (error) {
      failed(error);
    }
  }

  load();
  return {
    node,
    title: "API keys",
    focus: () => heading.focus(),
    close() {
      clearTimeout(typing);
      asking.abort();
      leaving.abort();
    },
  };
}

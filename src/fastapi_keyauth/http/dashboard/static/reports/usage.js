// The view of usage: by day, month, key or unit, and the same as a CSV file.

import { addressOf, askedInAddress, rememberAddress } from "../address.js";
import { api } from "../api.js";
import { DAYS, usageChart } from "../chart.js";
import { whileBusy } from "../dialogs/dialog.js";
import { el } from "../dom.js";
import { icon } from "../icons.js";
import { keyPages } from "../key-pages.js";
import { failure } from "../list-empty.js";
import { say } from "../messages.js";
import { navigation } from "../navigation.js";
import { listedOwner, ownerChoice } from "../owners.js";
import { save } from "./download.js";
import { daysOf, PERIODS, rangeOf, USUAL_PERIOD } from "./periods.js";
import { GROUPINGS, usageFilters } from "./usage-filters.js";
import { usageTable } from "./usage-table.js";

const ID = /^[0-9A-Za-z]{12}$/;
const USUAL_GROUPING = "day";

// Dates only if they were chosen: a period such as "this month" goes on with the calendar.
function addressOfUsage({ period, from, to, by, owner, key }) {
  const dates = period === "custom" && { from, to };
  return addressOf("#/usage", { period: period !== USUAL_PERIOD && period, ...dates, by: by !== USUAL_GROUPING && by, owner, key });
}

/** Gives {node, title, name, focus(), readAddress(), close()}. */
export function usageView(options) {
  let asking = new AbortController();
  let asked = readAsked();
  const heading = el("h1", { tabindex: "-1" }, "Usage");
  const button = el("button", { type: "button", class: "button", on: { click: () => whileBusy(button, download) } }, icon("download"), "Download CSV");
  const views = navigation("usage");
  const owners = ownerChoice(options, (owner) => change({ owner, key: "" }));
  const filters = usageFilters(asked, change);
  const body = el("div", { class: "card" });
  const status = el("p", { class: "hidden-text", role: "status" });
  const lead = el("p", { class: "lead" }, "Units that were used, and requests that were refused. Days and months are in UTC.");
  const node = el("div", { class: "view" }, views.node, el("div", { class: "view-head" }, el("div", {}, heading, lead), owners?.node, button), filters.node, body, status);

  function readAsked() {
    const found = askedInAddress();
    const known = (values, value, usual) => (values.some(([name]) => name === value) ? value : usual);
    const period = known(PERIODS, found.get("period"), USUAL_PERIOD);
    const key = found.get("key") ?? "";
    return {
      period,
      ...daysOf(period, { from: found.get("from") ?? "", to: found.get("to") ?? "" }),
      by: known(GROUPINGS, found.get("by"), USUAL_GROUPING),
      owner: listedOwner(options, found.get("owner") ?? ""),
      key: ID.test(key) ? key : "",
    };
  }

  function change(values) {
    asked = { ...asked, ...values };
    rememberAddress(addressOfUsage(asked), "Usage", true);
    load();
  }

  const query = () => ({ ...rangeOf(asked), by: asked.by, ...(asked.owner && { owner_id: asked.owner }), ...(asked.key && { key_id: asked.key }) });

  async function load() {
    asking.abort();
    asking = new AbortController();
    const { signal } = asking;
    views.show(asked.owner);
    owners?.show(asked.owner);
    filters.show(asked);
    const problem = problemOf(asked);
    button.hidden = Boolean(problem);
    if (problem) {
      body.removeAttribute("aria-busy");
      body.replaceChildren(el("p", { class: "muted" }, problem));
      status.textContent = problem;
      return;
    }
    if (!body.hasChildNodes()) body.replaceChildren(el("span", { class: "skeleton skeleton-chart" }));
    body.setAttribute("aria-busy", "true");
    try {
      const [{ items }, keys, only] = await Promise.all([api.usageReport(query(), signal), keysFor(signal), asked.key && api.get(asked.key, signal)]);
      if (signal.aborted) return;
      if (only) filters.showKey(only.name);
      show(items, keys);
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
    } finally {
      if (!signal.aborted) body.removeAttribute("aria-busy");
    }
  }

  // Reports have ids. The names come from the list, in which the most recent keys are.
  async function keysFor(signal) {
    if (asked.by !== "key") return new Map();
    const pages = keyPages(asked.owner ? { owner_id: asked.owner } : {}, signal);
    await pages.all(() => {});
    return new Map(pages.keys.map((key) => [key.id, key]));
  }

  function show(items, keys) {
    const isUsed = items.some((item) => item.refused || Object.values(item.units).some(Boolean));
    status.textContent = isUsed ? "Usage loaded." : "No usage in this period.";
    if (!isUsed) {
      body.replaceChildren(nothing());
      return;
    }
    const days = items.map(({ day, units, refused }) => ({ day, admitted: units.requests, refused }));
    const hasChart = asked.by === "day" && days.length > 1;
    const chart = hasChart && usageChart(days, { scale: DAYS, period: `from ${asked.from} to ${asked.to}` });
    body.replaceChildren(...[chart, ...usageTable(items, asked.by, keys)].filter(Boolean));
  }

  function nothing() {
    const widen = () => {
      change({ period: "12-months", ...daysOf("12-months") });
      heading.focus();
    };
    const wider = asked.period !== "12-months" && el("button", { type: "button", class: "button", on: { click: widen } }, "Show the last 12 months");
    const words = asked.key ? "This key was not used." : "No key was used. Create a key and call the API with it: its requests appear here within a few seconds.";
    return el("div", { class: "nothing" }, icon("search"), el("h2", {}, "No usage in this period"), el("p", {}, words), wider);
  }

  function failed(error) {
    const words = Object.values(error.fields)[0] ?? error.message;
    body.replaceChildren(el("div", { class: "nothing" }, failure("The usage cannot be shown", words, load)));
  }

  async function download() {
    try {
      const file = await api.usageFile(query());
      save(file);
      say(`${file.name} has been saved.`);
    } catch (error) {
      if (!error.isSessionEnd) say(error.message, "bad");
    }
  }

  rememberAddress(addressOfUsage(asked), "Usage", false);
  load();
  return {
    node,
    title: "Usage",
    name: "usage",
    focus: () => heading.focus(),
    readAddress() {
      asked = readAsked();
      rememberAddress(addressOfUsage(asked), "Usage", false);
      load();
    },
    close: () => asking.abort(),
  };
}

function problemOf({ from, to }) {
  if (!from || !to) return "Choose the first and the last day.";
  return from > to ? "The last day is before the first day." : "";
}

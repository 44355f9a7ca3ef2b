// A report of usage as a table: an item on each line, a unit in each column.

import { el, written } from "../dom.js";
import { number, utcDate, utcMonth, utcWeekday } from "../format.js";

const MOST_ROWS = 500;
const GROUPS = { day: "Day (UTC)", month: "Month (UTC)", key: "Key", unit: "Unit" };
const NOT_FINAL = "May still change: a day is final at the latest one hour after its end (UTC)";

/** `keys`: the known keys by id, for a report by key. */
export function usageTable(items, by, keys) {
  const units = by === "unit" ? ["units"] : unitsOf(items);
  const valueOf = by === "unit" ? (item) => item.units[item.unit] : (item, unit) => item.units[unit] ?? 0;
  const rows = sorted(items, by);
  const total = (unit) => number(items.reduce((sum, item) => sum + valueOf(item, unit), 0));
  const hasTotal = by !== "unit" && items.length > 1;
  const numbers = (of) => units.map((unit) => el("td", {}, of(unit)));
  const table = el(
    "table",
    {},
    el("thead", {}, el("tr", {}, [GROUPS[by], ...units.map(unitLabel), "Refused", "Final"].map((label) => el("th", { scope: "col" }, label)))),
    el("tbody", {}, rows.slice(0, MOST_ROWS).map((item) =>
      el("tr", {}, el("th", { scope: "row" }, nameOf(item, by, keys)), numbers((unit) => number(valueOf(item, unit))), el("td", {}, number(item.refused)), finality(item)),
    )),
    hasTotal && el("tfoot", {}, el("tr", {}, el("th", { scope: "row" }, "Total"), numbers(total), el("td", {}, number(items.reduce((sum, item) => sum + item.refused, 0))), el("td"))),
  );
  return [
    el("div", { class: "report", role: "region", tabindex: "0", "aria-label": "Usage" }, table),
    rows.length > MOST_ROWS && el("p", { class: "muted small" }, `The first ${number(MOST_ROWS)} of ${number(rows.length)} rows. The CSV file has all rows.`),
  ];
}

/** The units that the items have: requests first. */
function unitsOf(items) {
  return [...new Set(["requests", ...items.flatMap((item) => Object.keys(item.units)).sort()])];
}

const unitLabel = (unit) => unit.charAt(0).toUpperCase() + unit.slice(1);

// The newest day first, and the key that was used most.
function sorted(items, by) {
  if (by === "unit") return items;
  if (by === "key") return [...items].sort((left, right) => right.units.requests - left.units.requests || right.refused - left.refused);
  return [...items].reverse();
}

function nameOf(item, by, keys) {
  if (by === "day") {
    const day = new Date(item.day);
    return el("time", { datetime: item.day }, el("span", { class: "wide-only" }, utcWeekday(day), " "), utcDate(day));
  }
  if (by === "month") return el("time", { datetime: item.month }, utcMonth(new Date(item.month)));
  if (by === "unit") return written(item.unit);
  const key = keys.get(item.key_id);
  // A key that was deleted has usage, but no page.
  if (!key) return el("code", {}, item.key_id);
  return [el("a", { href: `#/keys/${key.id}` }, written(key.name)), " ", el("code", { class: "key-hint" }, key.hint)];
}

function finality({ closed }) {
  return el("td", {}, closed ? "Yes" : el("span", { class: "tag", title: NOT_FINAL }, "Not yet"));
}

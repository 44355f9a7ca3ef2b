// Limits beside the hourly one: a name, a number, a window, a unit, an algorithm on each line.

import { el, newId } from "./dom.js";
import { field } from "./fields.js";
import { icon } from "./icons.js";
import { WINDOWS } from "./limits.js";

const MOST = 8;
const SECONDS = "seconds";
const ALGORITHMS = [["", "Default"], ["fixed_window", "Fixed"], ["sliding_window", "Sliding"]];
const NAME = /^[a-z0-9_-]{1,32}$/;

/**
 * Gives a field whose `read()` is a list of limits. `units`: what can be counted; `current`: the limits to start with;
 * `hasHourly`: whether the hourly limit, which has a field of its own, takes one of the 8 places and the name "hour";
 * `defaults`: limits that a button puts in place of the others, see `isDefault()`.
 */
export function limitsField({ units, current = [], hasHourly = true, label = "Limits", hint = "", defaults = [] }) {
  const list = el("div", { class: "limit-rows" });
  const add = el("button", { type: "button", class: "button", on: { click: () => addRow({}, true) } }, icon("plus"), "Add a limit");
  const restore = el("button", { type: "button", class: "button", on: { click: showDefaults } }, "Use the defaults");
  let rows = [];
  const base = field({
    name: "limits", label, isGroup: true, control: el("div", {}, list, el("div", { class: "buttons" }, add, restore)),
    hint: `A request must have room in every limit. A window of a day or a month is one of the calendar, in UTC.${hint && ` ${hint}`}`,
  });

  function addRow(limit, isNew = false) {
    const row = limitRow(limit, units, () => {
      rows = rows.filter((each) => each !== row);
      row.node.remove();
      base.showError("");
      settle();
      (rows.at(-1)?.first ?? add).focus();
    });
    rows.push(row);
    list.append(row.node);
    settle();
    if (isNew) row.first.focus();
  }

  function settle() {
    add.hidden = rows.length >= MOST - Number(hasHourly);
    restore.hidden = !defaults.length;
    rows.forEach((row, index) => row.node.setAttribute("aria-label", `Limit ${index + 1}`));
  }

  function showLimits(limits) {
    rows = [];
    list.replaceChildren();
    limits.forEach((limit) => addRow(limit));
    settle();
  }

  function showDefaults() {
    base.showError("");
    showLimits(defaults);
    rows[0].first.focus();
  }

  const read = () => rows.map((row) => row.read());
  showLimits(defaults);
  const usual = JSON.stringify(read());
  showLimits(current);
  const before = JSON.stringify(read());
  return {
    ...base,
    focus: () => (rows[0]?.first ?? add).focus(),
    state: () => rows.map((row) => row.state()),
    read,
    isChanged: () => JSON.stringify(read()) !== before,
    isDefault: () => defaults.length > 0 && JSON.stringify(read()) === usual,
    /** What is wrong and can be seen here, or "". */
    problem() {
      const names = read().map(({ name }) => name);
      if (names.some((name) => !NAME.test(name))) return "The name of a limit has 1 to 32 characters of a-z, 0-9, _ and -.";
      if (new Set(names).size < names.length) return "Each limit needs a name of its own.";
      if (hasHourly && names.includes("hour")) return "The name hour belongs to the requests per hour. Choose another name.";
      return "";
    },
  };
}

function limitRow(limit, units, remove) {
  const text = (value, more) => el("input", { type: "text", class: "input", autocomplete: "off", spellcheck: "false", value, ...more });
  const choice = (values, chosen) =>
    el("select", { class: "input" }, values.map(([value, words]) => el("option", { value, selected: value === chosen }, words)));
  const hasSeconds = typeof limit.per === "number";
  const name = text(limit.name ?? "", { placeholder: "per-day", maxlength: 32 });
  const number = text(String(limit.limit ?? ""), { placeholder: "10000", inputmode: "numeric" });
  const per = choice([...WINDOWS.map((window) => [window, window]), [SECONDS, "seconds…"]], hasSeconds ? SECONDS : (limit.per ?? "day"));
  const seconds = text(hasSeconds ? String(limit.per) : "", { placeholder: "900", inputmode: "numeric" });
  // A unit that is no longer declared is shown, so that saving does not change it unseen.
  const known = [...new Set([...units, ...(limit.unit ? [limit.unit] : [])])];
  const unit = choice(known.map((each) => [each, each]), limit.unit ?? units[0]);
  const algorithm = choice(ALGORITHMS, limit.algorithm ?? "");
  const secondsCell = cell("Seconds", seconds);
  const showSeconds = () => (secondsCell.hidden = per.value !== SECONDS);
  per.addEventListener("change", () => {
    showSeconds();
    if (!secondsCell.hidden) seconds.focus();
  });
  showSeconds();
  const drop = el("button", { type: "button", class: "icon-button", "aria-label": "Remove this limit", on: { click: remove } }, icon("close"));
  const cells = [cell("Name", name), cell("Number", number), cell("Unit", unit), cell("Per", per), secondsCell, cell("Window", algorithm)];
  const controls = [name, number, per, seconds, unit, algorithm];
  return {
    node: el("div", { class: "limit-row", role: "group" }, cells, drop),
    first: name,
    state: () => controls.map((control) => control.value),
    read: () => ({
      name: name.value.trim(),
      limit: wholeNumber(number.value),
      per: per.value === SECONDS ? wholeNumber(seconds.value) : per.value,
      unit: unit.value,
      ...(algorithm.value && { algorithm: algorithm.value }),
    }),
  };
}

function cell(label, control) {
  control.id = newId("limit");
  return el("div", { class: "limit-cell" }, el("label", { for: control.id, class: "small" }, label), control);
}

/** A number as people type it. What is not one is sent as it is, and the server's sentence about it is shown. */
export function wholeNumber(text) {
  const digits = text.trim().replace(/[\s,_']/g, "");
  return /^-?\d+$/.test(digits) ? Number(digits) : text;
}

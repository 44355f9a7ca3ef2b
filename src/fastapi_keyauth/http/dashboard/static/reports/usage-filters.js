// The bar above a report of usage: period, grouping, and the one key that it is about.

import { chip } from "../chip.js";
import { el } from "../dom.js";
import { choices } from "../fields.js";
import { daysOf, PERIODS } from "./periods.js";

export const GROUPINGS = [["day", "Day"], ["month", "Month"], ["key", "Key"], ["unit", "Unit"]];

/** Gives {node, show(asked), showKey(name)}. `onChange(values)`: what was chosen. */
export function usageFilters(asked, onChange) {
  const custom = () => ({ from: from.value, to: to.value });
  const chosen = () => onChange({ period: period.value, ...daysOf(period.value, custom()) });
  const period = el("select", { class: "input", "aria-label": "Period", on: { change: chosen } }, PERIODS.map(([value, label]) => el("option", { value }, label)));
  const date = (label) => el("input", { type: "date", class: "input", "aria-label": label, on: { change: chosen } });
  const [from, to] = [date("First day"), date("Last day")];
  const dates = el("div", { class: "dates" }, from, el("span", { "aria-hidden": "true" }, "–"), to);
  const by = choices("by", GROUPINGS, asked.by, (value) => onChange({ by: value }));
  const only = chip(() => {
    onChange({ key: "" });
    period.focus();
  });
  return {
    node: el("div", { class: "toolbar report-bar", role: "search", "aria-label": "Usage" }, period, dates, el("fieldset", { class: "bare" }, el("legend", { class: "hidden-text" }, "Group by"), by.node), only.node),
    show(now) {
      period.value = now.period;
      [from.value, to.value] = [now.from, now.to];
      dates.hidden = now.period !== "custom";
      by.choose(now.by);
      only.show("Only", now.key);
    },
    showKey: (name) => only.show("Only", name),
  };
}

// Limits in words, and what is left of them.

import { el, svg } from "./dom.js";
import { ago, number } from "./format.js";

export const WINDOWS = ["second", "minute", "hour", "day", "month"];
/** The limit that `hourly_limit` is short for. */
export const isHourly = ({ name, per, unit }) => name === "hour" && per === "hour" && unit === "requests";

const NEARLY = 0.8;
const WIDTH = 100;
const HEIGHT = 4;

/** "1,000 requests per hour" */
export function limitWords({ limit, per, unit }) {
  return `${number(limit)} ${unit} ${perWords(per)}`;
}

function perWords(per) {
  if (typeof per === "string") return `per ${per}`;
  return per === 1 ? "per second" : `every ${number(per)} seconds`;
}

/** A list of limits with what is left of each. The bar is what is used; the words beside it say the same. */
export function limitList(states) {
  return el("ul", { class: "limits" }, states.map(limitItem));
}

function limitItem(state) {
  const used = Math.min(1, 1 - state.remaining / state.limit);
  const level = used >= 1 ? "limit-full" : used >= NEARLY ? "limit-nearly" : "";
  return el(
    "li",
    { class: `limit ${level}` },
    el("p", { class: "limit-words" }, el("span", { class: "strong" }, limitWords(state)), " ", el("code", { class: "key-hint" }, state.name)),
    svg(
      "svg",
      { class: "limit-bar", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "meter-limit", width: WIDTH, height: HEIGHT }),
      svg("rect", { class: "meter-peak", width: used * WIDTH, height: HEIGHT }),
    ),
    el("p", { class: "limit-left small" }, `${number(state.remaining)} left`, el("span", { class: "muted" }, " · resets ", ago(state.reset_at))),
  );
}

// Usage as pictures: a sparkline for a row, a chart for a key's page. Drawn by DOM calls, without a library.

import { el, svg } from "./dom.js";
import { compact, count, day, hour, number, timeZone, utcDay } from "./format.js";

const SPARK = { width: 96, height: 26 };
const CHART = { height: 236, left: 46, right: 8, top: 30, bottom: 26 };
const NEARLY = 0.8;
const TICK_WIDTH = 64;
const WIDEST_BAR = 56;
/** What the bars of a chart are. `isTick`: a bar at which the axis has a word. */
export const HOURS = {
  title: "Requests per hour", zone: timeZone, moment: (item) => new Date(item.hour), name: hour,
  isTick: (moment) => moment.getHours() === 0, tick: day,
};
export const DAYS = { title: "Requests per day", zone: () => "UTC", moment: (item) => new Date(item.day), name: utcDay, isTick: () => true, tick: utcDay };

const sum = (values) => values.reduce((total, value) => total + value, 0);

/**
 * 24 hours at a scale of their own, so that their shape shows, and below it the busiest hour against the hourly limit.
 * `usage` is {admitted: [...], refused: [...]}, or null if there were no requests.
 */
export function sparkline(usage, limit) {
  if (!usage) return el("span", { class: "usage muted" }, "No requests");
  const { admitted, refused } = usage;
  const peak = Math.max(...admitted);
  const top = Math.max(1, ...admitted.map((value, index) => value + refused[index]));
  const share = limit ? Math.min(1, peak / limit) : 0;
  const level = share >= 1 ? "full" : share >= NEARLY ? "nearly" : "fine";
  const ofLimit = limit ? `busiest hour ${number(peak)} of ${number(limit)}` : "no limit";
  const label = `${count(sum(admitted), "request")} in 24 hours, ${ofLimit}` + (sum(refused) ? `, ${number(sum(refused))} refused` : "");
  const step = SPARK.width / admitted.length;
  const bars = (values, below) =>
    values
      .map((value, index) => {
        if (!value) return "";
        // At least a pixel and a half, so that a single request shows.
        const height = Math.max(1.5, (value / top) * SPARK.height);
        const base = SPARK.height - (below ? (below[index] / top) * SPARK.height : 0);
        return `M${(index * step).toFixed(1)} ${base.toFixed(1)}v${(-Math.min(height, base)).toFixed(1)}h${(step - 1).toFixed(1)}V${base.toFixed(1)}z`;
      })
      .join("");
  const picture = svg(
    "svg",
    { class: "spark", viewBox: `0 0 ${SPARK.width} ${SPARK.height}`, role: "img", "aria-label": label },
    svg("title", {}, label),
    svg("path", { class: "spark-base", d: `M0 ${SPARK.height - 0.5}h${SPARK.width}` }),
    svg("path", { class: "bar-admitted", d: bars(admitted) }),
    svg("path", { class: "bar-refused", d: bars(refused, admitted) }),
  );
  const meter = svg(
    "svg",
    { class: `meter meter-${level}`, viewBox: "0 0 96 3", "aria-hidden": "true" },
    svg("rect", { class: "meter-limit", width: 96, height: 3, rx: 1.5 }),
    svg("rect", { class: "meter-peak", width: Math.max(peak ? 2 : 0, share * 96), height: 3, rx: 1.5 }),
  );
  const words = limit ? `${compact(sum(admitted))} · peak ${Math.round(share * 100)}%` : `${compact(sum(admitted))} · no limit`;
  return el("span", { class: "usage" }, el("span", { class: "usage-picture" }, picture, limit ? meter : null), el("span", { class: "usage-words", "aria-hidden": "true" }, words));
}

/**
 * `items` is [{admitted, refused}] with an hour or a day each, oldest first. `period`: which, in words; `more`: what stands
 * below it. Redraws itself when its width changes.
 */
export function usageChart(items, { scale, period, limit, more }) {
  const tip = el("div", { class: "chart-tip", hidden: true });
  const canvas = el("div", { class: "chart-canvas" });
  const total = { admitted: sum(items.map((item) => item.admitted)), refused: sum(items.map((item) => item.refused)) };
  const label = `${scale.title} ${period}: ${number(total.admitted)} admitted, ${number(total.refused)} refused`;
  let drawn = 0;
  new ResizeObserver(([entry]) => {
    const width = Math.round(entry.contentRect.width);
    if (width && width !== drawn) canvas.replaceChildren(draw(items, scale, limit, width, label), tip);
    drawn = width;
  }).observe(canvas);
  canvas.addEventListener("pointermove", (event) => point(event, canvas, tip, items, scale));
  canvas.addEventListener("pointerleave", () => (tip.hidden = true));
  return el(
    "figure",
    { class: "chart" },
    el(
      "figcaption",
      { class: "legend" },
      el("span", { class: "legend-admitted" }, `Admitted ${number(total.admitted)}`),
      el("span", { class: "legend-refused" }, `Refused ${number(total.refused)}`),
      limit && el("span", { class: "legend-limit" }, `Limit ${number(limit)} per hour`),
    ),
    canvas,
    more,
  );
}

function draw(items, scale, limit, width, label) {
  const inner = { width: width - CHART.left - CHART.right, height: CHART.height - CHART.top - CHART.bottom };
  const peak = Math.max(...items.map((item) => item.admitted + item.refused));
  // The limit is part of the picture, unless it would leave no height for the bars.
  const withLimit = limit && limit <= Math.max(peak, 1) * 4;
  const top = niceTop(Math.max(4, peak, withLimit ? limit : 0));
  const y = (value) => CHART.top + inner.height * (1 - value / top);
  const step = inner.width / items.length;
  const parts = [
    svg("text", { class: "chart-text", x: 0, y: 12 }, scale.title),
    svg("text", { class: "chart-text", x: width - CHART.right, y: 12, "text-anchor": "end" }, `Time: ${scale.zone()}`),
  ];
  for (const value of [0, top / 2, top]) {
    parts.push(
      svg("path", { class: value ? "chart-line" : "chart-line chart-ground", d: `M${CHART.left} ${y(value)}H${width - CHART.right}` }),
      svg("text", { class: "chart-text", x: CHART.left - 8, y: y(value) + 4, "text-anchor": "end" }, compact(value)),
    );
  }
  const ticks = items.map((item, index) => [scale.moment(item), index]).filter(([moment]) => scale.isTick(moment));
  const every = Math.max(1, Math.ceil((TICK_WIDTH * ticks.length) / inner.width));
  for (const [moment, index] of ticks.filter((_tick, at) => at % every === 0)) {
    const x = CHART.left + index * step;
    parts.push(svg("path", { class: "chart-day", d: `M${x} ${CHART.top}V${CHART.height - CHART.bottom + 4}` }));
    if (x + 52 < width) parts.push(svg("text", { class: "chart-text", x: x + 4, y: CHART.height - 8 }, scale.tick(moment)));
  }
  const barWidth = Math.min(WIDEST_BAR, Math.max(0.8, step - (step > 3 ? 1 : 0.3))).toFixed(2);
  const bars = (from, to) =>
    items
      .map((item, index) => {
        const low = from(item);
        const high = to(item);
        if (high === low) return "";
        const x = CHART.left + index * step;
        const height = Math.max(1.5, y(low) - y(high));
        return `M${x.toFixed(2)} ${y(low).toFixed(2)}v${(-height).toFixed(2)}h${barWidth}v${height.toFixed(2)}z`;
      })
      .join("");
  parts.push(
    svg("path", { class: "bar-admitted", d: bars(() => 0, (item) => item.admitted) }),
    svg("path", { class: "bar-refused", d: bars((item) => item.admitted, (item) => item.admitted + item.refused) }),
  );
  if (withLimit) parts.push(svg("path", { class: "chart-limit", d: `M${CHART.left} ${y(limit)}H${width - CHART.right}` }));
  parts.push(svg("rect", { class: "chart-here", x: 0, y: CHART.top, width: Math.max(2, step), height: inner.height, hidden: "" }));
  return svg("svg", { width, height: CHART.height, viewBox: `0 0 ${width} ${CHART.height}`, role: "img", "aria-label": label }, ...parts);
}

/** A round number of at least `value`, whose half is round as well. */
function niceTop(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const tops = [1, 1.2, 1.6, 2, 2.4, 3, 4, 5, 6, 8, 10].map((factor) => factor * power);
  return tops.find((top) => top >= value && (top >= 20 || top % 2 === 0));
}

function point(event, canvas, tip, items, scale) {
  const box = canvas.getBoundingClientRect();
  const step = (box.width - CHART.left - CHART.right) / items.length;
  const index = Math.floor((event.clientX - box.left - CHART.left) / step);
  const item = items[index];
  const here = canvas.querySelector(".chart-here");
  tip.hidden = !item;
  here?.toggleAttribute("hidden", !item);
  if (!item) return;
  const x = CHART.left + index * step;
  here?.setAttribute("x", x);
  tip.replaceChildren(el("strong", {}, scale.name(scale.moment(item))), el("span", {}, `${number(item.admitted)} admitted`), el("span", {}, `${number(item.refused)} refused`));
  tip.style.left = `${Math.min(Math.max(0, x - tip.offsetWidth / 2), box.width - tip.offsetWidth)}px`;
}

/** The same numbers as a table: for users who cannot see the chart, and for exact values. */
export function byDay(hours) {
  const days = new Map();
  for (const item of hours) {
    const name = day(new Date(item.hour));
    const row = days.get(name) ?? { admitted: 0, refused: 0, peak: 0 };
    row.admitted += item.admitted;
    row.refused += item.refused;
    row.peak = Math.max(row.peak, item.admitted);
    days.set(name, row);
  }
  const head = ["Day", "Admitted", "Refused", "Busiest hour"].map((text) => el("th", { scope: "col" }, text));
  const rows = [...days].reverse().map(([name, row]) =>
    el("tr", {}, el("th", { scope: "row" }, name), ...[row.admitted, row.refused, row.peak].map((value) => el("td", {}, number(value)))),
  );
  return el("details", { class: "by-day" }, el("summary", {}, "Numbers by day"), el("table", {}, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows)));
}

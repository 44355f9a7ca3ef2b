// Times and numbers as people read them. The page is in English, and so are its dates.

import { el } from "./dom.js";

const MINUTE = 60;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  [365 * DAY, "year"],
  [30 * DAY, "month"],
  [DAY, "day"],
  [HOUR, "hour"],
  [MINUTE, "minute"],
];
/** Seconds; an expiry that is nearer than this is marked. */
export const SOON = 7 * DAY;

const relativeFormat = new Intl.RelativeTimeFormat("en", { numeric: "always" });
const numberFormat = new Intl.NumberFormat("en");
const compactFormat = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const dateFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
const exactFormat = new Intl.DateTimeFormat("en-GB", {
  day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", timeZoneName: "short",
});
const hourFormat = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short" });
const utcDayFormat = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" });
const utcDateFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric", timeZone: "UTC" });
const utcWeekdayFormat = new Intl.DateTimeFormat("en-GB", { weekday: "short", timeZone: "UTC" });
const utcMonthFormat = new Intl.DateTimeFormat("en-GB", { month: "long", year: "numeric", timeZone: "UTC" });

/** 1,234 */
export const number = (value) => numberFormat.format(value);
/** 1.2K */
export const compact = (value) => compactFormat.format(value);
/** 22 Nov 2026 */
export const date = (moment) => dateFormat.format(moment);
/** 22 Nov 2026, 14:03 CET */
export const exact = (moment) => exactFormat.format(moment);
/** Sun 22 Nov, 14:00 */
export const hour = (moment) => hourFormat.format(moment);
/** Sun 22 Nov */
export const day = (moment) => dayFormat.format(moment);
/** Sun 22 Nov, of days that are counted in UTC */
export const utcDay = (moment) => utcDayFormat.format(moment);
/** 22 Nov 2026 */
export const utcDate = (moment) => utcDateFormat.format(moment);
/** Sun */
export const utcWeekday = (moment) => utcWeekdayFormat.format(moment);
/** November 2026 */
export const utcMonth = (moment) => utcMonthFormat.format(moment);
/** 1 key, 2 keys */
export const count = (value, word) => `${number(value)} ${word}${value === 1 ? "" : "s"}`;
/** The time zone of all times on the page: "Europe/Berlin". */
export const timeZone = () => exactFormat.resolvedOptions().timeZone;

/** Seconds from now until a moment; negative: it has passed. */
export function secondsUntil(moment) {
  return (new Date(moment).getTime() - Date.now()) / 1000;
}

/** "3 minutes ago", "in 5 days". What has passed counts whole units; what is to come is rounded to the nearest one. */
export function relative(moment) {
  const seconds = secondsUntil(moment);
  if (seconds > 0) return inFuture(seconds);
  for (const [length, unit] of STEPS) {
    if (-seconds >= length) return relativeFormat.format(Math.trunc(seconds / length), unit);
  }
  return "just now";
}

function inFuture(seconds) {
  for (const [at, [length, unit]] of STEPS.entries()) {
    // From 23 hours and 30 minutes on it is a day, and not 24 hours.
    const smaller = STEPS[at + 1]?.[0] ?? 0;
    if (seconds >= length - smaller / 2) return relativeFormat.format(Math.max(1, Math.round(seconds / length)), unit);
  }
  return "in less than a minute";
}

/** A <time> that reads "3 minutes ago" and stays right; the exact time on hover. */
export function ago(moment) {
  return el("time", { datetime: moment, title: exact(new Date(moment)), "data-relative": true }, relative(moment));
}

/** A <time> that reads "22 Nov 2026"; the exact time on hover. */
export function onDate(moment) {
  return el("time", { datetime: moment, title: exact(new Date(moment)) }, date(new Date(moment)));
}

/** A <time> with all of it. */
export function exactly(moment) {
  return el("time", { datetime: moment }, exact(new Date(moment)));
}

/** Update "3 minutes ago" while the page stays open. */
export function keepTimesTrue() {
  setInterval(() => {
    for (const node of document.querySelectorAll("time[data-relative]")) node.textContent = relative(node.dateTime);
  }, 20_000);
}

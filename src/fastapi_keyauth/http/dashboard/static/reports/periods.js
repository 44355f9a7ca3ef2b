// Periods of whole days in UTC, in which usage is counted.

const DAY_MS = 86_400_000;
const MONTHS = 12;
const DAYS = 30;

/** Name -> label. "custom" is a pair of dates. */
export const PERIODS = [
  ["30-days", "Last 30 days"], ["month", "This month"], ["last-month", "Last month"], ["12-months", "Last 12 months"], ["custom", "Custom"],
];
export const USUAL_PERIOD = "30-days";

const DATE = /^\d{4}-\d\d-\d\d$/;
const written = (moment) => new Date(moment).toISOString().slice(0, 10);
const isDate = (text) => DATE.test(text) && !Number.isNaN(Date.parse(text));
const firstOf = (year, month) => written(Date.UTC(year, month, 1));

/**
 * The first and the last day of a period, as {from, to}. `custom`: the dates of "custom"; what is not a date in it is "".
 */
export function daysOf(period, custom, now = new Date()) {
  const [year, month, today] = [now.getUTCFullYear(), now.getUTCMonth(), written(now)];
  if (period === "custom") return { from: isDate(custom.from) ? custom.from : "", to: isDate(custom.to) ? custom.to : "" };
  if (period === "month") return { from: firstOf(year, month), to: today };
  if (period === "last-month") return { from: firstOf(year, month - 1), to: written(Date.UTC(year, month, 0)) };
  if (period === "12-months") return { from: firstOf(year, month - MONTHS + 1), to: today };
  return { from: written(now - (DAYS - 1) * DAY_MS), to: today };
}

/** The same for the server, whose `to` is the day after the last one. */
export const rangeOf = ({ from, to }) => ({ from, to: written(Date.parse(to) + DAY_MS) });

// The words around the table: how many keys there are, and what is said in place of the table if there are none.

import { el } from "./dom.js";
import { count, number } from "./format.js";
import { icon } from "./icons.js";

const NEARLY_FULL = 0.8;

/** How many keys are shown, of how many that were found. `most`: how many the owner may have, if all of them are listed. */
export function countInWords(shown, found, { isComplete, isCutOff }, most) {
  if (isCutOff) return `${number(shown)} of the newest ${count(found, "key")}. There are more: narrow them down with a filter.`;
  if (!found) return "No keys";
  if (!isComplete) return `${count(shown, "key")} so far`;
  if (shown < found) return `${number(shown)} of ${count(found, "key")}`;
  return found >= NEARLY_FULL * most ? `${count(found, "key")}. The maximum is ${count(most, "key")}.` : count(found, "key");
}

/** No key matches the filters; `clear` removes them. */
export function noMatch(clear) {
  return [
    icon("search"),
    el("h2", {}, "No key matches"),
    el("p", {}, "No key matches the search and the filters."),
    el("button", { type: "button", class: "button", on: { click: clear } }, "Clear the filters"),
  ];
}

/** No keys yet; `createButton` creates the first one (null: the user may not), `showRevoked` shows those of the past. */
export function firstVisit(createButton, showRevoked) {
  return [
    icon("key"),
    el("h2", {}, "No keys yet"),
    el("p", {}, "Create one for each program that calls the API, and name it after the place where it runs. Then each can be replaced or revoked without the others."),
    el("p", { class: "muted" }, "A key is shown only once, when it is created. Copy it into your secret manager or your environment."),
    ...(createButton ? [createButton] : []),
    el("button", { type: "button", class: "button button-quiet", on: { click: showRevoked } }, "Show revoked keys"),
  ];
}

/** Something could not be loaded. */
export function failure(title, words, retry) {
  return [
    icon("alert"),
    el("h2", {}, title),
    el("p", {}, words),
    el("button", { type: "button", class: "button", on: { click: retry } }, "Try again"),
  ];
}

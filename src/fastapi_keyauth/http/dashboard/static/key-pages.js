// Keys as the server gives them, page by page and newest first, and the order in which the user wants them.

import { api } from "./api.js";
import { NEWEST_FIRST } from "./address.js";
import { matchesLocally } from "./search-text.js";

const MOST_ON_A_PAGE = 200;
/** More are not sorted in the browser: an administrator with more keys than this narrows them down first. */
export const MOST_IN_ALL = 5000;

/** Gives {keys, isComplete, isCutOff, next(size), all(onProgress)}. `query`: what is asked for; `signal` ends it. */
export function keyPages(query, signal) {
  let cursor = null;
  const pages = {
    keys: [],
    isComplete: false,
    isCutOff: false,
    async next(size = MOST_ON_A_PAGE) {
      const page = await api.list({ ...query, limit: size, ...(cursor && { cursor }) }, signal);
      pages.keys.push(...page.items);
      cursor = page.next_cursor;
      pages.isComplete = !cursor;
    },
    async all(onProgress) {
      while (!pages.isComplete) {
        if (pages.keys.length >= MOST_IN_ALL) {
          pages.isCutOff = true;
          return;
        }
        await pages.next();
        onProgress(pages.keys.length);
      }
    },
    replace(key) {
      const at = pages.keys.findIndex(({ id }) => id === key.id);
      if (at >= 0) pages.keys[at] = key;
    },
  };
  return pages;
}

const VALUES = {
  name: (key) => key.name,
  owner: (key) => key.owner_id,
  created: (key) => key.created_at,
  used: (key) => key.last_used_at,
  expires: (key) => key.expires_at,
};
const byText = new Intl.Collator("en", { numeric: true, sensitivity: "base" }).compare;
const byTime = (left, right) => (left < right ? -1 : left > right ? 1 : 0);

/** The keys that a search in the page finds, in the order that is asked for. */
export function arranged(keys, { local, sort }) {
  return sorted(local ? keys.filter((key) => matchesLocally(key, local)) : keys, sort);
}

/** The keys in an order such as "name" or "-used". Keys without a value come last, whatever the direction. */
function sorted(keys, sort) {
  if (sort === NEWEST_FIRST) return keys;
  const field = sort.replace(/^-/, "");
  const direction = sort.startsWith("-") ? -1 : 1;
  const compare = field === "name" || field === "owner" ? byText : byTime;
  return [...keys].sort((left, right) => {
    const [a, b] = [VALUES[field](left), VALUES[field](right)];
    if (a === null || b === null) return (a === null) - (b === null);
    return direction * compare(a, b);
  });
}

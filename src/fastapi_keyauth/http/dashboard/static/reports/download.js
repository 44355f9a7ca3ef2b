// Files that the page has loaded with the session token in a header, which a plain link cannot send.

import { el } from "../dom.js";

const KEPT_MS = 60_000;

/** Let the browser save a file. */
export function save({ name, content }) {
  const url = URL.createObjectURL(content);
  el("a", { href: url, download: name }).click();
  // Not right away: some browsers read it later.
  setTimeout(() => URL.revokeObjectURL(url), KEPT_MS);
}

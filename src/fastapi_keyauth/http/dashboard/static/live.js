// A key that is shown may be changed elsewhere: by a dialog that was opened in another view, in another tab, by another
// person, by a program.

import { api } from "./api.js";
import { fromOtherTabs, tellOtherTabs } from "./tabs.js";

const EVERY_MS = 15_000;

const here = new EventTarget();

/** Tell this view and other tabs that a key was changed. `key`: as it is now, or null: ask the server. */
export function announceChange(id, key) {
  tellOtherTabs("changed", id);
  noteChange(id, key);
}

/** Tell this view alone, of a change that others have made. */
export function noteChange(id, key) {
  here.dispatchEvent(new CustomEvent("changed", { detail: { id, key } }));
}

/** Call `onChange(id, key|null)` when a key was changed, here or in another tab, until `signal` ends it. */
export function onChangeOfKey(onChange, signal) {
  const stop = fromOtherTabs("changed", (id) => onChange(id, null));
  signal.addEventListener("abort", stop);
  here.addEventListener("changed", ({ detail }) => onChange(detail.id, detail.key), { signal });
}

/** Tell this view and other tabs that an owner was changed. */
export function announceChangeOfOwner(id) {
  tellOtherTabs("ownerChanged", id);
  here.dispatchEvent(new CustomEvent("ownerChanged", { detail: id }));
}

/** Call `onChange(id)` when an owner was changed, here or in another tab, until `signal` ends it. */
export function onChangeOfOwner(onChange, signal) {
  const stop = fromOtherTabs("ownerChanged", onChange);
  signal.addEventListener("abort", stop);
  here.addEventListener("ownerChanged", ({ detail }) => onChange(detail), { signal });
}

/** Tell this view that a key was created. A dialog may outlive the view that opened it. */
export function announceCreation(key) {
  here.dispatchEvent(new CustomEvent("created", { detail: key }));
}

/** Call `onCreation(key)` when a key was created, until `signal` ends it. */
export function onCreationOfKey(onCreation, signal) {
  here.addEventListener("created", ({ detail }) => onCreation(detail), { signal });
}

/** Call `refresh` now and then while the tab is visible, and on return to it, until `signal` ends it. */
export function keepFresh(refresh, signal) {
  const timer = setInterval(() => document.visibilityState === "visible" && refresh(), EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer));
  onReturn(refresh, signal);
}

/** Call `refresh` whenever somebody comes back to this tab, until `signal` ends it. */
export function onReturn(refresh, signal) {
  addEventListener("focus", refresh, { signal });
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && refresh(), { signal });
}

/**
 * Read a key again while a dialog about it is open: now and then, on return to the tab, and after a change in another
 * tab. `onRead` gets the key, or null if it does not exist any more. Gives {check(), stop()}.
 */
export function watchKey(id, onRead) {
  const ending = new AbortController();
  const { signal } = ending;

  async function check() {
    try {
      const key = await api.get(id, signal);
      if (!signal.aborted) onRead(key);
    } catch (error) {
      if (error.status === 404) onRead(null);
      // Anything else is said when the dialog is sent.
    }
  }

  keepFresh(check, signal);
  onChangeOfKey((changed) => changed === id && check(), signal);
  return { check, stop: () => ending.abort() };
}

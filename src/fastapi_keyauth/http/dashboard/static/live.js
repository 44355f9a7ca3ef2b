// A key that is shown may be changed elsewhere: in another tab, by another person, by a program.

import { api } from "./api.js";
import { fromOtherTabs } from "./tabs.js";

const EVERY_MS = 15_000;

/** Call `onChange(id)` when another tab changed a key, until `signal` ends it. */
export function onChangeInOtherTab(onChange, signal) {
  const stop = fromOtherTabs("changed", onChange);
  signal.addEventListener("abort", stop);
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

  const timer = setInterval(() => document.visibilityState === "visible" && check(), EVERY_MS);
  onReturn(check, signal);
  onChangeInOtherTab((changed) => changed === id && check(), signal);
  return {
    check,
    stop() {
      clearInterval(timer);
      ending.abort();
    },
  };
}

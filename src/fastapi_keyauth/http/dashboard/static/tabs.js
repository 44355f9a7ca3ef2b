// What tabs of this page tell each other. A link that is opened in a new tab must not ask for another login, but the
// session belongs in no storage that outlives its tab: so tabs hand it over in memory, to this page on this origin.

import { config } from "./config.js";

const ANSWER_WITHIN_MS = 300;
const channel = open();
const listeners = { session: new Set(), loggedOut: new Set(), changed: new Set(), ownerChanged: new Set() };
let giveSession = () => null;

function open() {
  try {
    return new BroadcastChannel(`keyauth ${config.sessionItem} ${new URL(config.dataPath, document.baseURI)}`);
  } catch {
    return null; // Switched off by the user: each tab logs in for itself.
  }
}

channel?.addEventListener("message", ({ data }) => {
  if (data.kind === "ask") {
    const token = giveSession();
    if (token) channel.postMessage({ kind: "session", value: token });
  } else {
    for (const listener of listeners[data.kind] ?? []) listener(data.value);
  }
});

/** Answer other tabs that ask for a session; `give` returns the token of this tab, or null. */
export function answerOtherTabs(give) {
  giveSession = give;
}

/**
 * Tell the other tabs. Kinds: "session" and "loggedOut" with a token, "changed" with a key's id, "ownerChanged" with an
 * owner's. */
export function tellOtherTabs(kind, value) {
  channel?.postMessage({ kind, value });
}

/** Call a listener for what other tabs tell. Gives a function that ends it. */
export function fromOtherTabs(kind, listener) {
  listeners[kind].add(listener);
  return () => listeners[kind].delete(listener);
}

/** The session of another tab, or null if there is none. */
export function askOtherTabs() {
  if (!channel) return Promise.resolve(null);
  return new Promise((resolve) => {
    const finish = (token) => {
      stop();
      clearTimeout(waiting);
      resolve(token);
    };
    const stop = fromOtherTabs("session", finish);
    const waiting = setTimeout(() => finish(null), ANSWER_WITHIN_MS);
    channel.postMessage({ kind: "ask" });
  });
}

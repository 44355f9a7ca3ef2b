// The user's session token: where it is found, how it comes and goes. It is never in a URL.

import { config } from "./config.js";
import { answerOtherTabs, askOtherTabs, tellOtherTabs } from "./tabs.js";

// Without storage in the browser, the token lives as long as the page.
let inMemory = null;
let hasEnded = false;

function stores() {
  const found = [];
  for (const name of ["sessionStorage", "localStorage"]) {
    try {
      found.push(window[name]);
    } catch {
      // Switched off by the user.
    }
  }
  return found;
}

/** The token, or null. Read again each time, because the application's own scripts may renew it. */
export function sessionToken() {
  for (const store of stores()) {
    const token = store.getItem(config.sessionItem);
    if (token) return token;
  }
  return inMemory;
}

/** The token of this tab, or one that another tab of this page hands over, or null. */
export async function findSession() {
  const own = sessionToken();
  if (own) return own;
  const handed = await askOtherTabs();
  if (handed) keepSession(handed);
  return handed;
}

/** Store a token, for this tab alone. */
export function keepSession(token) {
  inMemory = token;
  hasEnded = false;
  try {
    sessionStorage.setItem(config.sessionItem, token);
  } catch {
    // In memory, then.
  }
}

/** Say whether the server has refused the token: such a token is not handed on. */
export function markSession(isOver) {
  hasEnded = isOver;
}

/** Forget it in this tab and in the browser. */
export function forgetSession() {
  inMemory = null;
  for (const store of stores()) store.removeItem(config.sessionItem);
}

/** Log out: at the application, if it has a route for that, and in all tabs of this page in any case. */
export async function logOut() {
  const token = sessionToken();
  forgetSession();
  if (!token) return;
  tellOtherTabs("loggedOut", token);
  if (!config.logOutPath) return;
  try {
    await fetch(config.logOutPath, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  } catch {
    // The token is forgotten here; the session expires by itself.
  }
}

answerOtherTabs(() => (hasEnded ? null : sessionToken()));

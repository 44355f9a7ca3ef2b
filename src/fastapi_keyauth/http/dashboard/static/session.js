// The user's session token: where it is found, how it comes and goes. Never in a URL.

import { config } from "./config.js";

// Where the browser keeps no storage for us, the token lives as long as the page.
let inMemory = null;

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

/** The token, or null. Read anew each time: the application's own scripts may renew it. */
export function sessionToken() {
  for (const store of stores()) {
    const token = store.getItem(config.sessionItem);
    if (token) return token;
  }
  return inMemory;
}

/** Keep a token that the page's own form was given: for this tab alone. */
export function keepSession(token) {
  inMemory = token;
  try {
    sessionStorage.setItem(config.sessionItem, token);
  } catch {
    // In memory, then.
  }
}

/** Forget it everywhere. */
export function forgetSession() {
  inMemory = null;
  for (const store of stores()) store.removeItem(config.sessionItem);
}

/** Log in at the application's own route. Throws an Error whose message can be shown. */
export async function logIn(user, password) {
  let answer;
  try {
    answer = await fetch(config.logInPath, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ [config.userField]: user, [config.passwordField]: password }),
      cache: "no-store",
    });
  } catch {
    throw new Error("The server cannot be reached. Check your connection and try again.");
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok && typeof body[config.tokenField] === "string") {
    keepSession(body[config.tokenField]);
    return;
  }
  const sentence = typeof body.detail === "string" ? body.detail : "";
  throw new Error(sentence || (answer.status < 500 ? "Check what you have typed and try again." : "That did not work. Try again."));
}

/** Log out: at the application, where it has a route for that, and here in any case. */
export async function logOut() {
  const token = sessionToken();
  forgetSession();
  if (!config.logOutPath || !token) return;
  try {
    await fetch(config.logOutPath, { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  } catch {
    // The token is forgotten here; the session ends by itself.
  }
}

// The request to the application's own login route, and what its answer means.

import { config } from "./config.js";
import { keepSession } from "./session.js";
import { tellOtherTabs } from "./tabs.js";

/** A login that did not work. The message can be shown; `fields`: name of the form's field -> sentence. */
export class LoginError extends Error {
  constructor(message, fields = {}) {
    super(message);
    this.fields = fields;
  }
}

// RFC 6749, section 4.3.2: what FastAPI's OAuth2PasswordRequestForm reads.
const STANDARD = { user: "username", password: "password", token: "access_token" };
const names = config.logInForm ? STANDARD : { user: config.userField, password: config.passwordField, token: config.tokenField };

/** Log in. Throws a LoginError. */
export async function logIn(user, password) {
  const values = { [names.user]: user, [names.password]: password };
  const answer = await send(values);
  const body = (await answer.json().catch(() => null)) ?? {};
  if (!answer.ok) throw asError(answer.status, body, values);
  const token = body[names.token];
  if (typeof token !== "string" || !token) {
    throw new LoginError(`The login worked, but the server's answer has no “${names.token}”. Tell the people who run this site.`);
  }
  keepSession(token);
  tellOtherTabs("session", token);
}

async function send(values) {
  try {
    return await fetch(config.logInPath, {
      method: "POST",
      headers: config.logInForm ? { Accept: "application/json" } : { Accept: "application/json", "Content-Type": "application/json" },
      body: config.logInForm ? new URLSearchParams({ grant_type: "password", ...values, scope: "" }) : JSON.stringify(values),
      cache: "no-store",
    });
  } catch {
    throw new LoginError("The server cannot be reached. Check your connection and try again.");
  }
}

function asError(status, body, values) {
  if (Array.isArray(body.detail)) return asFieldErrors(body.detail, values);
  const sentence = [body.detail, body.error_description, body.message].find((text) => typeof text === "string" && text);
  if (sentence) return new LoginError(sentence);
  if (status === 429) return new LoginError("Too many attempts. Wait a moment and try again.");
  return new LoginError(status < 500 ? "The login was refused. Check what you have typed and try again." : "The server could not log you in. Try again in a moment.");
}

// FastAPI's 422. Either a value is wrong, which is said at its field, or the route takes other fields than the page sends,
// which only the people who run the site can change.
function asFieldErrors(problems, values) {
  const fields = {};
  for (const { loc, msg, type } of problems) {
    const name = Array.isArray(loc) ? loc.at(-1) : undefined;
    // "Missing" although it was sent: the route reads a form and got JSON, or the reverse.
    if (values[name] && type !== "missing") fields[name === names.user ? "username" : "password"] = asSentence(msg);
  }
  if (Object.keys(fields).length) return new LoginError("", fields);
  const expected = problems.map(({ loc }) => (Array.isArray(loc) ? loc.slice(1).join(".") : "")).filter(Boolean);
  const sent = config.logInForm ? "a form" : "JSON";
  const which = expected.length ? `expects “${expected.join("”, “")}”, which the page does not send` : "does not take what the page sends";
  return new LoginError(`The login of this site is not set up correctly: its route ${which}. The page sends ${sent} with “${names.user}” and “${names.password}”. Tell the people who run this site.`);
}

function asSentence(message) {
  const text = String(message).replace(/^Value error, /, "");
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** Whether people log in with an email address alone. */
export const isEmail = names.user === "email";

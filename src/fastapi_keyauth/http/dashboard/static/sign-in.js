// What somebody without a session sees: a form, a link to the application's own page, or a sentence.

import { config } from "./config.js";
import { whileBusy } from "./dialogs/dialog.js";
import { el } from "./dom.js";
import { formAlert, textField } from "./fields.js";
import { icon } from "./icons.js";
import { logIn } from "./session.js";

/** `hasEnded`: there was a session a moment ago. `onSession` once there is one. */
export function signInView(hasEnded, onSession) {
  const heading = el("h1", { tabindex: "-1" }, "Log in");
  const sentence = hasEnded ? "Your session has ended. Log in again to go on." : "Log in to manage your API keys.";
  const node = el(
    "div",
    { class: "view sign-in" },
    el("div", { class: "card" }, el("span", { class: "logo logo-large", "aria-hidden": "true" }, icon("key")), heading, el("p", { class: "lead" }, sentence), way(onSession)),
  );
  return { node, title: "Log in", focus: () => heading.focus(), close() {} };
}

function way(onSession) {
  if (config.logInPath) return form(onSession);
  if (config.logInPage) return el("a", { class: "button button-primary", href: config.logInPage }, "Go to the log-in");
  const again = el("button", { type: "button", class: "button", on: { click: onSession } }, "Try again");
  return [el("p", { class: "muted" }, "Open this page from the application, where you are logged in."), again];
}

function form(onSession) {
  const isEmail = config.userField === "email";
  const user = textField({
    name: "username", label: isEmail ? "Email" : "User", type: isEmail ? "email" : "text", autocomplete: "username", required: true,
  });
  const password = textField({ name: "password", label: "Password", type: "password", autocomplete: "current-password", required: true });
  const alert = formAlert();
  const button = el("button", { type: "submit", class: "button button-primary" }, "Log in");
  const submit = (event) => {
    event.preventDefault();
    whileBusy(button, async () => {
      alert.hidden = true;
      try {
        // As it was typed: a password may begin with a space.
        await logIn(user.read(), password.control.value);
        password.control.value = "";
        onSession();
      } catch (error) {
        alert.hidden = false;
        alert.replaceChildren(icon("alert"), el("p", {}, error.message));
        password.focus();
      }
    });
  };
  return el("form", { class: "stack", novalidate: true, on: { submit } }, alert, user.node, password.node, button);
}

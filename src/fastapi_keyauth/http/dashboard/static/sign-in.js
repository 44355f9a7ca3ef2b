// What a user without a session sees: a form, a link to the application's own page, or a sentence.

import { config } from "./config.js";
import { whileBusy } from "./dialogs/dialog.js";
import { el } from "./dom.js";
import { formAlert, showErrors, textField } from "./fields.js";
import { icon } from "./icons.js";
import { isEmail, logIn } from "./login.js";

/** `hasEnded`: there was a session before. `keepsForm`: a form is kept until then. `onSession`: once there is a session. */
export function signInView(hasEnded, keepsForm, onSession) {
  const heading = el("h1", { tabindex: "-1" }, "Log in");
  const ended = keepsForm ? "Your session has ended. Log in again: what you have typed is kept." : "Your session has ended. Log in again to go on.";
  const sentence = hasEnded ? ended : "Log in to manage your API keys.";
  const node = el(
    "div",
    { class: "view sign-in" },
    el("div", { class: "card" }, el("span", { class: "logo logo-large", "aria-hidden": "true" }, icon("key")), heading, el("p", { class: "lead" }, sentence), way(keepsForm, onSession)),
  );
  return { node, title: "Log in", isSignIn: true, focus: () => heading.focus(), close() {} };
}

function way(keepsForm, onSession) {
  if (config.logInPath) return form(onSession);
  const again = el("button", { type: "button", class: "button", on: { click: onSession } }, "Try again");
  if (config.logInPage) {
    // In a tab of its own if this one keeps a form. The session then comes from there.
    const link = el("a", { class: "button button-primary", href: config.logInPage, target: keepsForm ? "_blank" : undefined }, keepsForm ? "Log in, in a new tab" : "Go to the login page");
    return keepsForm ? [link, again] : link;
  }
  return [el("p", { class: "muted" }, "Open this page from the application in which you are logged in."), again];
}

function form(onSession) {
  const user = textField({
    name: "username", label: isEmail ? "Email" : "Username or email", type: isEmail ? "email" : "text", autocomplete: "username", required: true,
  });
  const password = textField({ name: "password", label: "Password", type: "password", autocomplete: "current-password", required: true });
  const alert = formAlert();
  const button = el("button", { type: "submit", class: "button button-primary" }, "Log in");
  const submit = (event) => {
    event.preventDefault();
    const empty = { ...(!user.read() && { username: isEmail ? "Enter your email." : "Enter your username." }), ...(!password.control.value && { password: "Enter your password." }) };
    if (Object.keys(empty).length) {
      showErrors([user, password], alert, { fields: empty });
      return;
    }
    whileBusy(button, async () => {
      alert.hidden = true;
      try {
        // Not trimmed: a password may begin with a space.
        await logIn(user.read(), password.control.value);
        password.control.value = "";
        onSession();
      } catch (error) {
        showErrors([user, password], alert, error);
        if (!Object.keys(error.fields ?? {}).length) password.focus();
      }
    });
  };
  return el("form", { class: "stack", novalidate: true, on: { submit } }, alert, user.node, password.node, button);
}

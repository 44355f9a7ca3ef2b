// Which view is shown: by the session, and by the part of the address behind "#", which browsers send to no server.

import { viewInAddress } from "./address.js";
import { api, onSessionEnded } from "./api.js";
import { fillBar } from "./bar.js";
import { config } from "./config.js";
import { closeDialogs, resumeDialogs, suspendDialogs } from "./dialogs/dialog.js";
import { el } from "./dom.js";
import { keepTimesTrue } from "./format.js";
import { icon } from "./icons.js";
import { keyView } from "./key.js";
import { listView } from "./list.js";
import { auditView } from "./reports/audit.js";
import { usageView } from "./reports/usage.js";
import { findSession, forgetSession, keepSession, markSession, sessionToken } from "./session.js";
import { signInView } from "./sign-in.js";
import { fromOtherTabs } from "./tabs.js";

const VIEWS = {
  key: ({ id }) => keyView(id, options, setTitle),
  list: () => listView(options),
  usage: () => usageView(options),
  audit: () => auditView(options),
};
const content = document.getElementById("content");
const bar = fillBar(document.getElementById("bar"), () => {
  history.replaceState(null, "", "#/");
  showSignIn(false);
});
let view = null;
let options = null;
let lastUser = null;
let started = 0;

function show(next) {
  view?.close();
  closeDialogs();
  const isFirst = view === null;
  view = next;
  content.replaceChildren(next.node);
  setTitle(next.title);
  bar.update(options);
  // After a step inside the page the new heading is read out; a page that has just been opened starts at its top.
  if (!isFirst) next.focus();
}

function setTitle(words) {
  document.title = [words, config.product].filter(Boolean).join(" · ");
}

function showSignIn(hasEnded) {
  options = null;
  started += 1;
  const keepsForm = suspendDialogs();
  show(signInView(hasEnded, keepsForm, start));
}

async function start() {
  started += 1;
  const mine = started;
  const token = await findSession();
  if (mine !== started) return;
  if (!token) {
    if (!view?.isSignIn) showSignIn(false);
    return;
  }
  try {
    const found = await api.options();
    if (mine !== started) return;
    options = found;
    markSession(false);
    if (found.acts_for_owners && !found.is_admin && !found.owners.length) {
      showSentence("No owner to act for", "Keys belong to owners, and you do not act for one yet. Ask whoever manages yours to add you.");
      return;
    }
    route();
    resumeDialogs(options.user_id === lastUser);
    lastUser = options.user_id;
  } catch (error) {
    if (mine === started && !error.isSessionEnd) showFailure(error);
  }
}

function showFailure(error) {
  showSentence("The page cannot be shown", error.message);
}

function showSentence(title, words) {
  const heading = el("h1", { tabindex: "-1" }, title);
  const again = el("button", { type: "button", class: "button", on: { click: start } }, "Try again");
  const node = el("div", { class: "view" }, el("div", { class: "card nothing" }, icon("alert"), heading, el("p", {}, words), again));
  show({ node, title: "API keys", isSentence: true, focus: () => heading.focus(), close() {} });
}

function route() {
  const named = viewInAddress();
  if (view?.name === named.name && view.readAddress) view.readAddress();
  else show(VIEWS[named.name](named));
}

addEventListener("hashchange", () => {
  // "#content" is the way past the bar, not a view.
  if (options && view && !view.isSentence && (location.hash === "" || location.hash.startsWith("#/"))) route();
});
onSessionEnded(() => {
  if (view?.isSignIn) return;
  markSession(true);
  showSignIn(true);
});
// A login in another tab of this page, or in one of the application that shares its storage, ends the waiting here.
fromOtherTabs("session", (token) => {
  if (!view?.isSignIn) return;
  keepSession(token);
  start();
});
addEventListener("storage", ({ key, newValue }) => {
  if (key === config.sessionItem && newValue && view?.isSignIn) start();
});
fromOtherTabs("loggedOut", (token) => {
  if (sessionToken() !== token) return;
  forgetSession();
  showSignIn(false);
});
keepTimesTrue();
start();

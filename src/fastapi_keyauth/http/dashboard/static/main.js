// Which view is shown: by the session, and by the part of the address behind "#", which no server ever sees.

import { api, onSessionEnded } from "./api.js";
import { fillBar } from "./bar.js";
import { config } from "./config.js";
import { closeDialogs } from "./dialogs/dialog.js";
import { el } from "./dom.js";
import { keepTimesTrue } from "./format.js";
import { icon } from "./icons.js";
import { keyView } from "./key.js";
import { listView } from "./list.js";
import { sessionToken } from "./session.js";
import { signInView } from "./sign-in.js";

const content = document.getElementById("content");
const bar = fillBar(document.getElementById("bar"), () => {
  location.replace("#/");
  showSignIn(false);
});
let view = null;
let options = null;
let started = 0;

function show(next) {
  view?.close();
  closeDialogs();
  const isFirst = view === null;
  view = next;
  content.replaceChildren(next.node);
  setTitle(next.title);
  bar.update();
  // Whoever moves on inside the page is told where they are now; who has just opened it starts at its top.
  if (!isFirst) next.focus();
}

function setTitle(words) {
  document.title = [words, config.product].filter(Boolean).join(" · ");
}

function showSignIn(hasEnded) {
  options = null;
  show(signInView(hasEnded, start));
}

async function start() {
  started += 1;
  const mine = started;
  if (!sessionToken()) {
    showSignIn(false);
    return;
  }
  try {
    const found = await api.options();
    if (mine !== started) return;
    options = found;
    route();
  } catch (error) {
    if (mine === started && !error.isSessionEnd) showFailure(error);
  }
}

function showFailure(error) {
  const node = el(
    "div",
    { class: "view" },
    el("div", { class: "card nothing" }, icon("alert"), el("h1", { tabindex: "-1" }, "The page cannot be shown"), el("p", {}, error.message), el("button", { type: "button", class: "button", on: { click: start } }, "Try again")),
  );
  show({ node, title: "API keys", focus() {}, close() {} });
}

function route() {
  const found = /^#\/keys\/([0-9A-Za-z]+)$/.exec(location.hash);
  show(found ? keyView(found[1], options, setTitle) : listView(options));
}

addEventListener("hashchange", () => {
  // "#content" is the way past the bar, no view.
  if (options && (location.hash === "" || location.hash.startsWith("#/"))) route();
});
onSessionEnded(() => showSignIn(true));
keepTimesTrue();
start();

// The top of the list: what it is, for which owner, and the way to a new key.

import { startNewKey } from "./actions.js";
import { el } from "./dom.js";
import { icon } from "./icons.js";
import { navigation } from "./navigation.js";
import { mayWrite, ownerOfNew, ownerSwitch } from "./owners.js";

/** Gives {node, newButton(), show(ownerId), focus(), focusButton()}. `onOwner(ownerId)`: another owner was chosen. */
export function listHead(options, onOwner) {
  let owner = "";
  const views = navigation("list");
  const heading = el("h1", { tabindex: "-1" }, "API keys");
  const lead = el("p", { class: "lead" });
  const owners = ownerSwitch(options, onOwner);
  const newButton = () =>
    el("button", { type: "button", class: "button button-primary", "data-focus": "new", on: { click: () => startNewKey(options, ownerOfNew(options, owner)) } }, icon("plus"), "Create key");
  const main = newButton();
  const mayCreate = () => mayWrite(options, ownerOfNew(options, owner));
  return {
    node: el("div", {}, views.node, el("div", { class: "view-head" }, el("div", {}, heading, lead), owners?.node, main)),
    /** Null for those who may only read. */
    newButton: () => (mayCreate() ? newButton() : null),
    show(ownerId) {
      owner = ownerId;
      views.show(ownerId);
      owners?.show(ownerId);
      main.hidden = !mayCreate();
      const name = ownerOfNew(options, owner) === options.user_id ? "your name" : "the name of its owner";
      lead.textContent = mayCreate() ? `A key lets a program call the API in ${name}. Create one for each program.` : "You may see these keys, but not create or change any.";
    },
    focus: () => heading.focus(),
    focusButton: () => main.focus(),
  };
}

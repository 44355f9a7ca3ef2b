// The menu of a row: a button that opens a list of actions (WAI-ARIA menu button).

import { el, newId } from "./dom.js";
import { icon } from "./icons.js";

const GAP = 4;

/** `actions()` gives [{label, icon, isDanger, run}] when the menu opens. */
export function menuButton(label, actions, focusName) {
  const id = newId("menu");
  const button = el(
    "button",
    {
      type: "button", class: "icon-button", "aria-label": label, "aria-haspopup": "menu", "aria-expanded": "false",
      "data-focus": focusName,
    },
    icon("more"),
  );
  button.addEventListener("click", () => open(button, id, label, actions()));
  button.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    open(button, id, label, actions());
  });
  return button;
}

// One menu at a time, built when it opens: a thousand rows need no thousand menus.
function open(button, id, label, actions) {
  const items = actions.map((action) =>
    el(
      "button",
      {
        type: "button", role: "menuitem", tabindex: "-1", class: action.isDanger ? "menu-item is-danger" : "menu-item",
        on: {
          click: () => {
            // Focus the button first: a dialog that opens now returns the focus to it when it closes.
            menu.hidePopover();
            button.focus();
            action.run();
          },
        },
      },
      icon(action.icon),
      action.label,
    ),
  );
  const menu = el("div", { id, class: "menu", role: "menu", popover: "auto", "aria-label": label }, items);
  document.body.append(menu);
  menu.addEventListener("keydown", (event) => move(event, items, menu, button));
  menu.addEventListener("toggle", ({ newState }) => {
    if (newState !== "closed") return;
    button.setAttribute("aria-expanded", "false");
    menu.remove();
  });
  menu.showPopover();
  place(menu, button);
  button.setAttribute("aria-expanded", "true");
  items[0]?.focus();
}

function place(menu, button) {
  const from = button.getBoundingClientRect();
  const size = menu.getBoundingClientRect();
  const below = from.bottom + GAP + size.height <= innerHeight;
  menu.style.top = `${Math.max(GAP, below ? from.bottom + GAP : from.top - GAP - size.height)}px`;
  menu.style.left = `${Math.max(GAP, Math.min(from.right, innerWidth - GAP) - size.width)}px`;
}

function move(event, items, menu, button) {
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    items[(to + items.length) % items.length].focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    if (event.key === "Escape") event.preventDefault();
    menu.hidePopover();
    button.focus();
  }
}

// The way between the views: keys, usage, audit.

import { addressOf } from "./address.js";
import { el } from "./dom.js";

const VIEWS = [["list", "Keys", "#/"], ["usage", "Usage", "#/usage"], ["audit", "Audit", "#/audit"]];

/** Links to the views, which stay with the owner that was chosen. Gives {node, show(ownerId)}. */
export function navigation(current) {
  const links = VIEWS.map(([name, label, path]) => ({ path, node: el("a", { href: path, "aria-current": name === current && "page" }, label) }));
  return {
    node: el("nav", { class: "views", "aria-label": "Views" }, links.map(({ node }) => node)),
    show(owner) {
      for (const { path, node } of links) node.setAttribute("href", addressOf(path, { owner }));
    },
  };
}

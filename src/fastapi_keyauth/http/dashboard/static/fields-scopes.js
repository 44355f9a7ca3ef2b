// The field that says what a key may do.

import { el, newId, written } from "./dom.js";
import { choices, field } from "./fields.js";

/**
 * `options` says what this user may grant; `current` is what the key has, undefined for a new one. `isMissing()`: nothing
 * is chosen although something can be, which would make a key that most routes refuse.
 */
export function scopesField(options, current) {
  const has = new Set(current ?? []);
  const plain = options.scopes.filter((scope) => !scope.is_reserved);
  const reserved = options.scopes.filter((scope) => scope.is_reserved);
  // What the key has and this user may not grant stays visible: unticking it is the only way to change the key.
  const known = new Set(options.scopes.map((scope) => scope.name));
  const foreign = [...has].filter((name) => name !== "*" && !known.has(name) && !options.any_scope);
  const list = [...plain, ...foreign.map((name) => ({ name, description: "You may not grant this scope" }))];
  const mayBeFull = options.grants_all || has.has("*");
  const startsFull = current ? has.has("*") : options.grants_all && !list.length;
  // A single scope is no choice. Of several, the user chooses: a key should have no more than it needs.
  const isOnly = !current && !mayBeFull && list.length === 1;

  const boxes = list.map((scope) => scopeBox(scope, isOnly || has.has(scope.name)));
  const typed = options.any_scope ? typedScopes([...has].filter((name) => name !== "*" && !known.has(name))) : null;
  const restricted = el("div", { class: "scope-list" }, boxes.map((box) => box.node), typed?.node);
  const managing = reserved.map((scope) => scopeBox(scope, has.has(scope.name)));
  const kind = choices("scopes", [["some", "Only what it needs"], ["all", "Full access"]], startsFull ? "all" : "some", show);
  const note = el("p", { class: "result", "aria-live": "polite" });
  const parts = el("div", {}, mayBeFull && kind.node, restricted, note, managing.length > 0 && managingPart(managing, mayBeFull || list.length > 0));
  const base = field({ name: "scopes", label: "Scopes", hint: "What the key may do.", control: parts, isGroup: true });
  restricted.addEventListener("input", show);

  const isFull = () => mayBeFull && kind.read() === "all";
  const some = () => [...boxes.filter((box) => box.input.checked).map((box) => box.name), ...(typed?.read() ?? [])];
  const read = () => [...(isFull() ? ["*"] : some()), ...managing.filter((box) => box.input.checked).map((box) => box.name)];

  function show() {
    base.showError("");
    restricted.hidden = isFull();
    note.textContent = isFull() ? "All scopes of the application, including those it adds later." : "";
  }

  show();
  return {
    ...base,
    focus: () => (boxes[0]?.input ?? typed?.node ?? managing[0]?.input ?? base).focus(),
    read,
    state: read,
    // A key that has none already may stay so.
    isMissing: () => !read().length && (mayBeFull || boxes.length + managing.length > 0) && !(current && !has.size),
  };
}

function managingPart(boxes, isAside) {
  return el(
    "details",
    { class: "more", open: !isAside || boxes.some((box) => box.input.checked) },
    el("summary", {}, "Manage keys"),
    el("p", { class: "hint" }, "Full access does not include these scopes. Few programs need them."),
    el("div", { class: "scope-list" }, boxes.map((box) => box.node)),
  );
}

function scopeBox({ name, description }, isChecked) {
  const id = newId("scope");
  const hint = description && newId("hint");
  const input = el("input", { type: "checkbox", id, value: name, checked: isChecked, "aria-describedby": hint || undefined });
  const node = el(
    "div",
    { class: "scope" },
    input,
    el("label", { for: id }, written(name)),
    description && el("p", { class: "hint", id: hint }, description),
  );
  return { name, input, node };
}

// Without a catalog, the application's scopes are known to its authors alone.
function typedScopes(names) {
  const control = el("input", {
    type: "text", class: "input", "aria-label": "Names of scopes", placeholder: "items:read items:write", autocomplete: "off",
    spellcheck: "false", value: names.join(" "),
  });
  return { node: control, read: () => control.value.split(/[\s,]+/).filter(Boolean) };
}

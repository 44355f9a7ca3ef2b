// The fields that only a key has: expiry, scopes, environment.

import { el, newId, written } from "./dom.js";
import { choices, field, textField } from "./fields.js";
import { exact, relative, secondsUntil } from "./format.js";

const DAY_S = 86_400;
const PRESETS = [
  ["7", "7 days"],
  ["30", "30 days"],
  ["90", "90 days"],
  ["365", "1 year"],
  ["never", "Never"],
  ["own", "Own date"],
];
/** Days; a key that nobody thinks of again ends by itself. */
const USUAL_EXPIRY = "90";
const ENVIRONMENTS = ["live", "test", "staging", "dev"];
const OTHER = "other";

/**
 * When a key expires. `current` is the expiry of a key that exists already (null: never), undefined for a new one.
 * `read()` gives the part of the request's body.
 */
export function expiryField(current) {
  const isNew = current === undefined;
  const own = el("input", { type: "datetime-local", class: "input own-date", "aria-label": "Own date and time", hidden: true });
  const result = el("p", { class: "result", "aria-live": "polite" });
  const keep = current ? [["keep", "Keep"]] : [];
  const presets = isNew ? PRESETS : [...keep, ...PRESETS];
  const start = isNew ? USUAL_EXPIRY : current ? "keep" : "never";
  const choice = choices("expiry", presets, start, show);
  own.addEventListener("input", show);
  // Named after the field of a refusal; a preset that the server refuses is refused as expires_in_s.
  const base = field({ name: "expires_at", label: "Expires", control: el("div", {}, choice.node, own, result), isGroup: true });

  function chosen() {
    const value = choice.read();
    if (value === "keep") return current;
    if (value === "never") return null;
    if (value === "own") return own.value ? new Date(own.value).toISOString() : undefined;
    return new Date(Date.now() + Number(value) * DAY_S * 1000).toISOString();
  }

  function show() {
    own.hidden = choice.read() !== "own";
    base.showError("");
    const moment = chosen();
    if (moment === undefined) result.textContent = "Choose a date and a time.";
    else if (moment === null) result.textContent = "Works until somebody revokes it. A date is safer.";
    else if (secondsUntil(moment) <= 0) result.textContent = "That is over already.";
    // A preset says by itself how long that is.
    else result.textContent = `Works until ${exact(new Date(moment))}${/^\d/.test(choice.read()) ? "" : `, ${relative(moment)}`}.`;
  }

  show();
  return {
    ...base,
    focus: () => (own.hidden ? base.focus() : own.focus()),
    read() {
      const value = choice.read();
      if (value === "keep" || (value === "never" && isNew) || (value === "never" && current === null)) return {};
      if (value === "own" && !own.value) return { missing: "Choose a date, or one of the presets." };
      if (value === "own" && secondsUntil(own.value) <= 0) return { missing: "Choose a date that is still to come." };
      // The server's clock rules for a new key; a change can only name a date.
      if (isNew && value !== "own") return { expires_in_s: Number(value) * DAY_S };
      return { expires_at: chosen() };
    },
  };
}

/**
 * What a key may do. `options` says what this user may grant; `current` is what the key has, undefined for a new one.
 */
export function scopesField(options, current) {
  const has = new Set(current ?? []);
  const plain = options.scopes.filter((scope) => !scope.is_reserved);
  const reserved = options.scopes.filter((scope) => scope.is_reserved);
  // What the key has and this user may not grant stays visible: unticking it is the only way to change the key.
  const known = new Set(options.scopes.map((scope) => scope.name));
  const foreign = [...has].filter((name) => name !== "*" && !known.has(name) && !options.any_scope);
  const list = [...plain, ...foreign.map((name) => ({ name, description: "You may not grant this one" }))];
  const startsFull = current ? has.has("*") : options.grants_all && !list.length;

  const boxes = list.map((scope) => scopeBox(scope, has.has(scope.name)));
  const typed = options.any_scope ? typedScopes([...has].filter((name) => name !== "*" && !known.has(name))) : null;
  const restricted = el("div", { class: "scope-list" }, boxes.map((box) => box.node), typed?.node);
  const managing = reserved.map((scope) => scopeBox(scope, has.has(scope.name)));
  const mayBeFull = options.grants_all || has.has("*");
  const kind = choices("scopes", [["some", "Only what it needs"], ["all", "Full access"]], startsFull ? "all" : "some", show);
  const note = el("p", { class: "result", "aria-live": "polite" });
  const parts = el(
    "div",
    {},
    mayBeFull && kind.node,
    restricted,
    note,
    managing.length > 0 &&
      el(
        "details",
        { class: "more", open: managing.some((box) => box.input.checked) },
        el("summary", {}, "Managing keys"),
        el("p", { class: "hint" }, "Full access does not include these. A program seldom needs them."),
        el("div", { class: "scope-list" }, managing.map((box) => box.node)),
      ),
  );
  const base = field({ name: "scopes", label: "Scopes", hint: "What the key may do.", control: parts, isGroup: true });
  restricted.addEventListener("input", show);

  function isFull() {
    return mayBeFull && kind.read() === "all";
  }

  function some() {
    return [...boxes.filter((box) => box.input.checked).map((box) => box.name), ...(typed?.read() ?? [])];
  }

  function show() {
    base.showError("");
    restricted.hidden = isFull();
    if (isFull()) note.textContent = "Everything that the application's scopes allow, also those that it adds later.";
    else note.textContent = some().length ? "" : "Without a scope the key works only where none is asked for.";
  }

  show();
  return {
    ...base,
    read: () => [...(isFull() ? ["*"] : some()), ...managing.filter((box) => box.input.checked).map((box) => box.name)],
  };
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

// Without a catalogue the application's scopes are known to its authors alone.
function typedScopes(names) {
  const control = el("input", {
    type: "text", class: "input", "aria-label": "Names of scopes", placeholder: "items:read items:write", autocomplete: "off",
    spellcheck: "false", value: names.join(" "),
  });
  return { node: control, read: () => control.value.split(/[\s,]+/).filter(Boolean) };
}

/** The second part of the token: one of the usual words, or another. */
export function environmentField(standard) {
  const names = [...new Set([standard, ...ENVIRONMENTS])];
  const other = textField({
    name: "environment", label: "Own environment", hint: "1 to 16 small letters and digits.", maxlength: 16, placeholder: "preview",
  });
  other.node.hidden = true;
  const select = el(
    "select",
    { class: "input", name: "environment" },
    names.map((name) => el("option", { value: name }, name)),
    el("option", { value: OTHER }, "Other…"),
  );
  select.addEventListener("change", () => {
    other.node.hidden = select.value !== OTHER;
    if (!other.node.hidden) other.focus();
  });
  const chosen = field({ name: "environment", label: "Environment", hint: "Part of the token, so that everyone sees what it is for.", control: select });
  return {
    ...chosen,
    node: el("div", {}, chosen.node, other.node),
    showError: (text) => (other.node.hidden ? chosen : other).showError(text),
    focus: () => (other.node.hidden ? chosen : other).focus(),
    read: () => (other.node.hidden ? select.value : other.read()),
  };
}

/** Notes of the application's or the owner's, as JSON. */
export function metadataField(current = {}) {
  const before = Object.keys(current).length ? JSON.stringify(current, null, 2) : "";
  const control = el("textarea", {
    class: "input", name: "metadata", rows: 4, autocomplete: "off", spellcheck: "false", placeholder: '{"team": "search"}', value: before,
  });
  const base = field({
    name: "metadata", label: "Metadata", hint: "A JSON object of up to 4 KiB. Programs behind the API can read it.", control, isOptional: true,
  });
  return {
    ...base,
    isChanged: () => control.value.trim() !== before,
    /** The object, or undefined where it is none. */
    read() {
      try {
        const value = JSON.parse(control.value.trim() || "{}");
        return value && typeof value === "object" && !Array.isArray(value) ? value : undefined;
      } catch {
        return undefined;
      }
    },
  };
}

// Fields that only a key has: expiry, environment, metadata.

import { el } from "./dom.js";
import { choices, field, textField } from "./fields.js";
import { exact, relative, secondsUntil } from "./format.js";
import { duration } from "./lifetimes.js";

const DAY_S = 86_400;
/** Seconds. */
const PRESETS = [[7 * DAY_S, "7 days"], [30 * DAY_S, "30 days"], [90 * DAY_S, "90 days"], [365 * DAY_S, "1 year"]];
/** A key that nobody thinks of any more then stops working by itself. */
const USUAL_EXPIRY = 90 * DAY_S;
const ENVIRONMENTS = ["live", "test", "staging", "dev"];
const OTHER = "other";

/**
 * When a key expires. `current` is the expiry of a key that exists already (null: never), undefined for a new one.
 * `policy`: that for lifetimes, if it applies; `isExempt()`: whether it does not after all, see `update()`. `read()` gives
 * the part of the request's body.
 */
export function expiryField(current, policy = null, isExempt = () => false) {
  const isNew = current === undefined;
  const most = policy?.max_ttl_s ?? Infinity;
  const lifetime = policy?.default_ttl_s ?? policy?.max_ttl_s;
  const usual = lifetime ? Math.min(policy.default_ttl_s ?? USUAL_EXPIRY, most) : USUAL_EXPIRY;
  const own = el("input", { type: "datetime-local", class: "input own-date", "aria-label": "Custom date and time", hidden: true });
  const result = el("p", { class: "result", "aria-live": "polite" });
  const lengths = PRESETS.some(([seconds]) => seconds === usual) ? PRESETS : [...PRESETS, [usual, duration(usual)]].sort(([left], [right]) => left - right);
  const presets = [...(current ? [["keep", "Keep"]] : []), ...lengths.map(([seconds, label]) => [String(seconds), label]), ["never", "Never"], ["own", "Custom date"]];
  const start = isNew ? String(usual) : current ? "keep" : "never";
  const choice = choices("expiry", presets, start, show);
  own.addEventListener("input", show);
  // The server refuses a date as expires_at and a preset as expires_in_s; both are shown here.
  const base = field({ name: "expires_at", label: "Expires", control: el("div", {}, choice.node, own, result), isGroup: true });

  const isBound = () => (isNew ? Boolean(lifetime) : most < Infinity) && !isExempt();
  // A key that has no end keeps none until it gets one.
  const isOffered = (value) => !isBound() || (value === "never" ? start === "never" : !(Number(value) > most));
  const isTooLate = (moment) => isNew && isBound() && secondsUntil(moment) > most;

  function update() {
    choice.allow(isOffered, String(usual));
    show();
  }

  function chosen() {
    const value = choice.read();
    if (value === "keep") return current;
    if (value === "never") return null;
    if (value === "own") return own.value ? new Date(own.value).toISOString() : undefined;
    return new Date(Date.now() + Number(value) * 1000).toISOString();
  }

  function show() {
    own.hidden = choice.read() !== "own";
    base.showError("");
    const moment = chosen();
    if (moment === undefined) result.textContent = "Choose a date and a time.";
    else if (moment === null) result.textContent = "Works until it is revoked. A date is safer.";
    else if (secondsUntil(moment) <= 0) result.textContent = "This date has passed.";
    else if (isTooLate(moment)) result.textContent = latest();
    // A preset says by itself how long that is.
    else result.textContent = `Works until ${exact(new Date(moment))}${/^\d/.test(choice.read()) ? "" : `, ${relative(moment)}`}.`;
  }

  const latest = () => `The maximum is ${duration(most)}: ${exact(new Date(Date.now() + most * 1000))}.`;

  update();
  return {
    ...base,
    update,
    focus: () => (own.hidden ? base.focus() : own.focus()),
    state: () => [choice.read(), own.value],
    read() {
      const value = choice.read();
      if (value === "keep" || (value === "never" && isNew) || (value === "never" && current === null)) return {};
      if (value === "own" && !own.value) return { missing: "Choose a date or one of the presets." };
      if (value === "own" && secondsUntil(own.value) <= 0) return { missing: "Choose a date in the future." };
      if (value === "own" && isTooLate(own.value)) return { missing: latest() };
      // For a new key the server's clock decides; a change can only name a date.
      if (isNew && value !== "own") return { expires_in_s: Number(value) };
      return { expires_at: chosen() };
    },
  };
}

/** The second part of the token: one of the usual words, or another one. */
export function environmentField(standard) {
  const names = [...new Set([standard, ...ENVIRONMENTS])];
  const other = textField({
    name: "environment", label: "Other environment", hint: "1 to 16 lowercase letters and digits.", maxlength: 16, placeholder: "preview",
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
  const chosen = field({ name: "environment", label: "Environment", hint: "Part of the token, so that everybody sees what it is for.", control: select });
  return {
    ...chosen,
    node: el("div", {}, chosen.node, other.node),
    showError: (text) => (other.node.hidden ? chosen : other).showError(text),
    focus: () => (other.node.hidden ? chosen : other).focus(),
    state: () => [select.value, other.read()],
    read: () => (other.node.hidden ? select.value : other.read()),
  };
}

/** Notes of the application or the owner, as JSON. */
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
    state: () => control.value,
    isChanged: () => control.value.trim() !== before,
    /** The object, or undefined if the text is not one. */
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

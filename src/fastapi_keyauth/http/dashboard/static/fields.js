// Form fields: a label, a hint and a place for errors, tied together for screen readers.

import { el, newId } from "./dom.js";
import { icon } from "./icons.js";

/**
 * Wrap a control. Gives {node, control, name, showError(text), focus()}.
 * `isGroup`: several controls under one legend, as a fieldset.
 */
export function field({ name, label, hint, control, isGroup = false, isOptional = false }) {
  const id = control.id || newId(name);
  const hintId = hint && newId("hint");
  const errorId = newId("error");
  const error = el("p", { class: "error", id: errorId, hidden: true });
  const words = [label, isOptional && el("span", { class: "optional" }, "optional")];
  const target = isGroup ? el("fieldset", { class: "field", "data-field": name }) : control;
  target.setAttribute("aria-describedby", [hintId, errorId].filter(Boolean).join(" "));
  const hintNode = hint && el("p", { class: "hint", id: hintId }, hint);
  if (isGroup) {
    target.append(el("legend", {}, words.filter(Boolean)), ...[hintNode, control, error].filter(Boolean));
  } else {
    control.id = id;
  }
  const node = isGroup ? target : el("div", { class: "field", "data-field": name }, el("label", { for: id }, words), hintNode, control, error);
  const showError = (text) => {
    error.hidden = !text;
    error.replaceChildren(...(text ? [icon("alert"), text] : []));
    node.classList.toggle("is-wrong", Boolean(text));
    if (isGroup) return;
    if (text) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
  };
  // The wrong value is gone; whether the new one is right is found when the form is sent.
  node.addEventListener("input", () => showError(""));
  const first = () => (isGroup ? target.querySelector("input, textarea, select") : control);
  return {
    name,
    node,
    control,
    showError,
    focus: () => first()?.focus(),
  };
}

/** A line of text. */
export function textField({ name, label, hint, isOptional, ...attributes }) {
  const control = el("input", { type: "text", class: "input", name, autocomplete: "off", spellcheck: "false", ...attributes });
  return { ...field({ name, label, hint, control, isOptional }), read: () => control.value.trim(), state: () => control.value };
}

/** Several values, one on each line. */
export function linesField({ name, label, hint, value = [], placeholder }) {
  const control = el("textarea", {
    class: "input", name, rows: 2, autocomplete: "off", spellcheck: "false", placeholder, value: value.join("\n"),
  });
  const read = () => control.value.split(/[\n,]/).map((line) => line.trim()).filter(Boolean);
  return { ...field({ name, label, hint, control, isOptional: true }), read, state: () => control.value };
}

/** One choice of a few, as radio buttons. `allow` hides all but some, and chooses `usual` for a hidden one. `options` is [[value, label], ...]. Gives {node, read(), choose(value), allow(is, usual)}. */
export function choices(name, options, chosen, onChange) {
  const group = newId(name);
  const inputs = options.map(([value]) =>
    el("input", { type: "radio", name: group, value, checked: value === chosen, on: { change: () => onChange?.(value) } }),
  );
  const node = el(
    "div",
    { class: "choices" },
    options.map(([, label], index) => el("label", { class: "choice" }, inputs[index], el("span", {}, label))),
  );
  return {
    node,
    read: () => inputs.find((input) => input.checked)?.value,
    choose(value) {
      for (const input of inputs) input.checked = input.value === value;
    },
    allow(isAllowed, usual) {
      for (const input of inputs) input.parentElement.hidden = !isAllowed(input.value);
      if (inputs.some((input) => input.checked && input.parentElement.hidden)) this.choose(usual);
    },
  };
}

/**
 * Show what an ApiError says at the fields that it concerns, the rest above the form, and go to the first of them.
 */
export function showErrors(fields, alert, error) {
  clearErrors(fields, alert);
  // Then the login is shown, and this form again after it.
  if (error.isSessionEnd) return;
  const wrong = fields.filter(({ name }) => error.fields?.[name]);
  for (const each of wrong) {
    each.showError(error.fields[each.name]);
    const closed = each.node.closest("details:not([open])");
    if (closed) closed.open = true;
  }
  const elsewhere = Object.keys(error.fields ?? {}).some((name) => !fields.some((each) => each.name === name));
  if (!wrong.length || elsewhere) {
    alert.hidden = false;
    alert.replaceChildren(icon("alert"), el("p", {}, error.message));
  }
  if (wrong.length) wrong[0].focus();
}

/** Take all errors away. */
export function clearErrors(fields, alert) {
  for (const each of fields) each.showError("");
  alert.hidden = true;
}

/** The place above a form for errors that concern no field. */
export function formAlert() {
  return el("div", { class: "notice notice-bad", role: "alert", hidden: true });
}

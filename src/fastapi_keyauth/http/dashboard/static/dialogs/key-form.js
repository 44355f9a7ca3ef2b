// The form of a key, to create one and to edit one.

import { api } from "../api.js";
import { el, written } from "../dom.js";
import { clearErrors, formAlert, showErrors } from "../fields.js";
import { environmentField } from "../fields-key.js";
import { wholeNumber } from "../fields-limits.js";
import { reasonField } from "../fields-reason.js";
import { number } from "../format.js";
import { duration } from "../lifetimes.js";
import { ownerName } from "../owners.js";
import { containsToken } from "../search-text.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";
import { freshness, mayBeStale } from "./fresh.js";
import { commonFields, limitsOf } from "./key-fields.js";

/** Create a key for an owner; `onCreated` gets the answer with its token. */
export function openNewKey(options, ownerId, onCreated) {
  const fields = commonFields(options);
  const environment = environmentField(options.default_environment);
  open({
    title: "Create a key",
    action: "Create key",
    options,
    fields: { ...fields, environment },
    ownerId: ownerId === options.user_id ? null : ownerId,
    send: async () => {
      const body = { name: fields.name.read(), environment: environment.read(), scopes: fields.scopes.read(), ...fields.expiry.read() };
      if (ownerId !== options.user_id) body.owner_id = ownerId;
      if (fields.exempt?.isChecked()) body.exempt_from_policy = true;
      if (fields.limit.read() || fields.noHourly?.isChecked() || fields.limits.isChanged()) Object.assign(body, limitsOf(fields, options));
      if (fields.origins.read().length) body.allowed_origins = fields.origins.read();
      if (fields.addresses.read().length) body.allowed_ips = fields.addresses.read();
      if (fields.metadata.isChanged()) body.metadata = fields.metadata.read();
      return api.create(body);
    },
    onDone: onCreated,
  });
}

/** Edit a key; `onChanged` gets the key as it is now, `onStale` see `freshness`. Only what was changed is sent. */
export function openEdit(key, options, onChanged, onStale) {
  const fields = { ...commonFields(options, key), reason: reasonField() };
  const hourlyBefore = String(key.hourly_limit ?? "");
  open({
    title: "Edit key",
    action: "Save changes",
    options,
    fields,
    hasMetadata: Object.keys(key.metadata).length > 0,
    isRestricted: key.allowed_origins.length > 0 || key.allowed_ips.length > 0,
    fresh: freshness(key, ["active", "disabled", "expired"], onStale),
    send: async () => {
      const body = { ...fields.expiry.read() };
      if (fields.exempt?.isChanged()) body.exempt_from_policy = fields.exempt.isChecked();
      const differs = (left, right) => JSON.stringify(left) !== JSON.stringify(right);
      if (fields.name.read() !== key.name) body.name = fields.name.read();
      if (differs([...fields.scopes.read()].sort(), [...key.scopes].sort())) body.scopes = fields.scopes.read();
      const isHourlyChanged = fields.limit.read() !== hourlyBefore;
      // A number that is sent alone is all that a key with the default limits then has.
      const isListSent = fields.limits.isChanged() || fields.noHourly?.isChanged() || (isHourlyChanged && fields.limits.read().length > 0);
      if (isListSent) Object.assign(body, limitsOf(fields, options));
      else if (isHourlyChanged) body.hourly_limit = fields.limit.read() ? wholeNumber(fields.limit.read()) : null;
      if (differs(fields.origins.read(), key.allowed_origins)) body.allowed_origins = fields.origins.read();
      if (differs(fields.addresses.read(), key.allowed_ips)) body.allowed_ips = fields.addresses.read();
      if (fields.metadata.isChanged()) body.metadata = fields.metadata.read();
      if (!Object.keys(body).length) return key;
      if (fields.reason.read()) body.reason = fields.reason.read();
      return api.change(key.id, body);
    },
    onDone: onChanged,
  });
}

function open({ title, action, options, fields, ownerId = null, isRestricted = false, hasMetadata = false, fresh, send, onDone }) {
  const all = Object.values(fields);
  const alert = formAlert();
  const button = submitButton(action);
  const state = () => JSON.stringify(all.map((each) => each.state()));
  let pristine = "";
  const dialog = openDialog({
    title,
    isWide: true,
    content: [
      alert,
      fresh?.node,
      ownerId !== null && el("p", { class: "for-owner" }, "For the owner ", written(ownerName(options, ownerId), { class: "strong" })),
      fields.name.node,
      fields.environment?.node,
      fields.expiry.node,
      fields.exempt?.node,
      fields.scopes.node,
      fields.limit.node,
      el("details", { class: "more", open: fields.limits.read().length > 0 || Boolean(fields.noHourly?.isChecked()) }, el("summary", {}, "More limits"), fields.noHourly?.node, fields.limits.node),
      el("details", { class: "more", open: isRestricted }, el("summary", {}, "Restrict where it may be used"), fields.origins.node, fields.addresses.node),
      el("details", { class: "more", open: hasMetadata }, el("summary", {}, "Metadata for programs"), fields.metadata.node),
      fields.reason?.node,
    ],
    buttons: [cancelButton(), button],
    isDirty: () => !button.hidden && state() !== pristine,
    onSubmit: () => whileBusy(button, submit),
  });
  pristine = state();
  fresh?.attach(dialog, button);

  async function submit() {
    if (button.hidden) return;
    clearErrors(all, alert);
    const missing = missingOf(fields, options);
    if (missing) {
      showErrors(all, alert, missing);
      return;
    }
    try {
      const answer = await send();
      dialog.close();
      onDone(answer);
    } catch (error) {
      if (error.isStored) {
        dialog.close();
        onDone(null, error);
      } else if (fresh && mayBeStale(error)) {
        await fresh.check();
      } else {
        showErrors(all, alert, inWords(error, options, wholeNumber(fields.limit.read())));
      }
    }
  }
}

function inWords(error, options, typed) {
  if (error.fields?.expires_in_s) error.fields.expires_at = error.fields.expires_in_s;
  const [, most, start] = /max_key_ttl_s \((\d+) seconds\) after ([^.]+)/.exec(error.fields?.expires_at ?? "") ?? [];
  if (most) error.fields.expires_at = `The maximum is ${duration(Number(most))} after ${start}.`;
  // The server's sentence is for programs, which may come back with other credentials.
  if (error.code === "insufficient_scope" && error.fields.limits) {
    const [reason] = error.fields.limits.split(";");
    delete error.fields.limits;
    if (reason.includes("limit of")) {
      const isNumber = typed > options.default_hourly_limit;
      error.fields[isNumber ? "hourly_limit" : "limits"] = isNumber ? `The maximum is ${number(options.default_hourly_limit)}.` : `${reason}.`;
    }
  }
  return error;
}

// What can be seen without asking the server. All else it says itself, and better.
function missingOf(fields, options) {
  const found = {};
  if (!fields.name.read()) found.name = "Enter a name.";
  // Names are in lists, logs and the history: no place for a secret.
  else if (containsToken(fields.name.read(), options.key_prefix)) found.name = "This looks like a key itself. Enter a name that says where the key is used.";
  const { missing } = fields.expiry.read();
  if (missing) found.expires_at = missing;
  if (fields.scopes.isMissing()) found.scopes = "Choose what the key may do: at least one scope.";
  if (fields.limits.problem()) found.limits = fields.limits.problem();
  if (fields.reason?.problem(options.key_prefix)) found.reason = fields.reason.problem(options.key_prefix);
  if (fields.metadata.isChanged() && fields.metadata.read() === undefined) found.metadata = 'Enter a JSON object, such as {"team": "search"}.';
  return Object.keys(found).length ? { fields: found, message: "" } : null;
}

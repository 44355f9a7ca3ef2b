// The form of a key, to create one and to edit one.

import { api } from "../api.js";
import { el } from "../dom.js";
import { clearErrors, formAlert, linesField, showErrors, textField } from "../fields.js";
import { environmentField, expiryField, metadataField } from "../fields-key.js";
import { scopesField } from "../fields-scopes.js";
import { number } from "../format.js";
import { containsToken } from "../search-text.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";
import { freshness, mayBeStale } from "./fresh.js";

const MAX_NAME = 100;

/** Create a key; `onCreated` gets the answer with its token. */
export function openNewKey(options, onCreated) {
  const fields = commonFields(options);
  const environment = environmentField(options.default_environment);
  open({
    title: "Create a key",
    action: "Create key",
    options,
    fields: { ...fields, environment },
    send: async () => {
      const body = { name: fields.name.read(), environment: environment.read(), scopes: fields.scopes.read(), ...fields.expiry.read() };
      if (fields.limit.read()) body.hourly_limit = wholeNumber(fields.limit.read());
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
  const fields = commonFields(options, key);
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
      const differs = (left, right) => JSON.stringify(left) !== JSON.stringify(right);
      if (fields.name.read() !== key.name) body.name = fields.name.read();
      if (differs([...fields.scopes.read()].sort(), [...key.scopes].sort())) body.scopes = fields.scopes.read();
      if (fields.limit.read() !== String(key.hourly_limit ?? "")) body.hourly_limit = fields.limit.read() ? wholeNumber(fields.limit.read()) : null;
      if (differs(fields.origins.read(), key.allowed_origins)) body.allowed_origins = fields.origins.read();
      if (differs(fields.addresses.read(), key.allowed_ips)) body.allowed_ips = fields.addresses.read();
      if (fields.metadata.isChanged()) body.metadata = fields.metadata.read();
      return Object.keys(body).length ? api.change(key.id, body) : key;
    },
    onDone: onChanged,
  });
}

function commonFields(options, key) {
  const standard = options.default_hourly_limit;
  const most = options.limit_is_bound ? ` The maximum is ${number(standard)}.` : "";
  return {
    name: textField({
      name: "name", label: "Name", hint: "Say where it is used, so that you still know in a year.",
      placeholder: "prod-api-server, staging-worker, local-dev-alice", maxlength: MAX_NAME, value: key?.name ?? "", autofocus: true,
    }),
    expiry: expiryField(key?.expires_at),
    scopes: scopesField(options, key?.scopes),
    limit: textField({
      name: "hourly_limit", label: "Requests per hour", isOptional: true, inputmode: "numeric",
      hint: (standard === null ? "Empty: no limit." : `Empty: the default, ${number(standard)}.`) + most,
      placeholder: standard === null ? "No limit" : String(standard), value: key ? String(key.hourly_limit ?? "") : "",
    }),
    origins: linesField({
      name: "allowed_origins", label: "Allowed origins", hint: "Web pages that may use the key, one on each line. Empty: no web page, except the service's own.",
      placeholder: "https://app.example.com", value: key?.allowed_origins,
    }),
    addresses: linesField({
      name: "allowed_ips", label: "Allowed addresses", hint: "IP addresses or networks, one on each line. Empty: any.",
      placeholder: "203.0.113.7\n198.51.100.0/24", value: key?.allowed_ips,
    }),
    metadata: metadataField(key?.metadata),
  };
}

function open({ title, action, options, fields, isRestricted = false, hasMetadata = false, fresh, send, onDone }) {
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
      fields.name.node,
      fields.environment?.node,
      fields.expiry.node,
      fields.scopes.node,
      fields.limit.node,
      el("details", { class: "more", open: isRestricted }, el("summary", {}, "Restrict where it may be used"), fields.origins.node, fields.addresses.node),
      el("details", { class: "more", open: hasMetadata }, el("summary", {}, "Metadata for programs"), fields.metadata.node),
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
        showErrors(all, alert, inWords(error, options));
      }
    }
  }
}

function inWords(error, options) {
  if (error.fields?.expires_in_s) error.fields.expires_at = error.fields.expires_in_s;
  // The server's sentence is for programs, which may come back with other credentials.
  if (error.fields?.hourly_limit && error.code === "insufficient_scope") error.fields.hourly_limit = `The maximum is ${number(options.default_hourly_limit)}.`;
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
  if (fields.metadata.isChanged() && fields.metadata.read() === undefined) found.metadata = 'Enter a JSON object, such as {"team": "search"}.';
  return Object.keys(found).length ? { fields: found, message: "" } : null;
}

// What is not a number is sent as it is, and the server's sentence about it is shown.
function wholeNumber(text) {
  const digits = text.replace(/[\s,_']/g, "");
  return /^-?\d+$/.test(digits) ? Number(digits) : text;
}

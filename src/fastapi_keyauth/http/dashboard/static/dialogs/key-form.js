// The form of a key, for a new one and for one that is changed.

import { api } from "../api.js";
import { el } from "../dom.js";
import { clearErrors, formAlert, linesField, showErrors, textField } from "../fields.js";
import { environmentField, expiryField, metadataField, scopesField } from "../fields-key.js";
import { number } from "../format.js";
import { cancelButton, openDialog, submitButton, whileBusy } from "./dialog.js";

const MAX_NAME = 100;

/** Make a key; `onCreated` gets the answer with its token. */
export function openNewKey(options, onCreated) {
  const fields = commonFields(options);
  const environment = environmentField(options.default_environment);
  open({
    title: "New API key",
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

/** Change a key; `onChanged` gets the key as it is now. Only what was changed is sent. */
export function openEdit(key, options, onChanged) {
  const fields = commonFields(options, key);
  open({
    title: "Edit key",
    action: "Save changes",
    options,
    fields,
    hasMetadata: Object.keys(key.metadata).length > 0,
    isRestricted: key.allowed_origins.length > 0 || key.allowed_ips.length > 0,
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
  const most = options.limit_is_bound ? ` You may set ${number(standard)} at most.` : "";
  return {
    name: textField({
      name: "name", label: "Name", hint: "Say where it is used, so that you still know in a year.",
      placeholder: "prod-api-server, staging-worker, local-dev-alice", maxlength: MAX_NAME, value: key?.name ?? "", autofocus: true,
    }),
    expiry: expiryField(key?.expires_at),
    scopes: scopesField(options, key?.scopes),
    limit: textField({
      name: "hourly_limit", label: "Requests an hour", isOptional: true, inputmode: "numeric",
      hint: (standard === null ? "Empty: no cap." : `Empty: the usual ${number(standard)}.`) + most,
      placeholder: standard === null ? "no cap" : String(standard), value: key ? String(key.hourly_limit ?? "") : "",
    }),
    origins: linesField({
      name: "allowed_origins", label: "Allowed origins", hint: "Web pages that may use it, one on each line. Empty: any.",
      placeholder: "https://app.example.com", value: key?.allowed_origins,
    }),
    addresses: linesField({
      name: "allowed_ips", label: "Allowed addresses", hint: "IP addresses or networks, one on each line. Empty: any.",
      placeholder: "203.0.113.7\n198.51.100.0/24", value: key?.allowed_ips,
    }),
    metadata: metadataField(key?.metadata),
  };
}

function open({ title, action, options, fields, isRestricted = false, hasMetadata = false, send, onDone }) {
  const all = Object.values(fields);
  const alert = formAlert();
  const button = submitButton(action);
  const dialog = openDialog({
    title,
    isWide: true,
    content: [
      alert,
      fields.name.node,
      fields.environment?.node,
      fields.expiry.node,
      fields.scopes.node,
      fields.limit.node,
      el("details", { class: "more", open: isRestricted }, el("summary", {}, "Where it may be used from"), fields.origins.node, fields.addresses.node),
      el("details", { class: "more", open: hasMetadata }, el("summary", {}, "Notes for programs"), fields.metadata.node),
    ],
    buttons: [cancelButton(), button],
    onSubmit: () =>
      whileBusy(button, async () => {
        clearErrors(all, alert);
        const missing = missingOf(fields);
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
          } else {
            if (error.fields?.expires_in_s) error.fields.expires_at = error.fields.expires_in_s;
            // The server's sentence is for programs, which may come back with other credentials.
            if (error.fields?.hourly_limit && error.code === "insufficient_scope") error.fields.hourly_limit = `You may set ${number(options.default_hourly_limit)} at most.`;
            showErrors(all, alert, error);
          }
        }
      }),
  });
}

// What can be seen without asking the server. All else it says itself, and better.
function missingOf(fields) {
  const found = {};
  if (!fields.name.read()) found.name = "Give it a name.";
  const { missing } = fields.expiry.read();
  if (missing) found.expires_at = missing;
  if (fields.metadata.isChanged() && fields.metadata.read() === undefined) found.metadata = 'Write a JSON object, such as {"team": "search"}.';
  return Object.keys(found).length ? { fields: found, message: "" } : null;
}

// What is no number is sent as it is, and the server's sentence about it is shown.
function wholeNumber(text) {
  const digits = text.replace(/[\s,_']/g, "");
  return /^-?\d+$/.test(digits) ? Number(digits) : text;
}

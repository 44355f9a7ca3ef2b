// The fields that the form of a key has, whether the key is new or not.

import { el } from "../dom.js";
import { linesField, textField } from "../fields.js";
import { expiryField, metadataField } from "../fields-key.js";
import { limitsField, wholeNumber } from "../fields-limits.js";
import { scopesField } from "../fields-scopes.js";
import { number } from "../format.js";
import { isHourly } from "../limits.js";

const MAX_NAME = 100;

/** All limits of the key: the list has the others, and an empty number stands for the default. */
export function limitsOf(fields, options) {
  const typed = fields.limit.read();
  if (fields.noHourly?.isChecked()) return { hourly_limit: null, limits: fields.limits.read() };
  return { hourly_limit: typed ? wholeNumber(typed) : options.default_hourly_limit, limits: fields.limits.read() };
}

/** The fields of a new key, or of `key`. */
export function commonFields(options, key) {
  const standard = options.default_hourly_limit;
  const others = key ? key.limits.filter((limit) => !isHourly(limit)) : options.default_limits;
  const most = options.limit_is_bound ? ` The maximum is ${number(standard)}.` : "";
  const { policy } = options;
  // Of a key that exists the server says whether the policy applies, unless it applies to all.
  const binding = !key || policy?.applies_to_all ? policy : null;
  const isExempt = Boolean(key?.exempt_from_policy);
  const exempt = options.is_admin && (policy || isExempt) ? checkField("exempt_from_policy", "Exempt from the policy for lifetimes", isExempt) : null;
  const expiry = expiryField(key?.expires_at, binding, exempt ? exempt.isChecked : () => isExempt);
  exempt?.node.addEventListener("change", expiry.update);
  return {
    name: textField({
      name: "name", label: "Name", hint: "Say where it is used, so that you still know in a year.",
      placeholder: "prod-api-server, staging-worker, local-dev-alice", maxlength: MAX_NAME, value: key?.name ?? "", autofocus: true,
    }),
    expiry,
    ...(exempt && { exempt }),
    scopes: scopesField(options, key?.scopes),
    limit: textField({
      name: "hourly_limit", label: "Requests per hour", isOptional: true, inputmode: "numeric",
      hint: (standard === null ? "Empty: no limit." : `Empty: the default, ${number(standard)}.`) + most,
      placeholder: standard === null ? "No limit" : String(standard), value: key ? String(key.hourly_limit ?? "") : "",
    }),
    limits: limitsField({ units: options.units, current: others }),
    // Whoever is bound to the default cannot leave it out.
    ...(standard !== null && !options.limit_is_bound && { noHourly: checkField("no_hourly_limit", "No limit of requests per hour", key ? key.hourly_limit === null : false) }),
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

// A box to tick, with what forms expect of a field.
function checkField(name, label, isChecked) {
  const control = el("input", { type: "checkbox", checked: isChecked });
  return {
    name,
    node: el("label", { class: "check" }, control, label),
    showError() {},
    focus: () => control.focus(),
    state: () => control.checked,
    isChecked: () => control.checked,
    isChanged: () => control.checked !== isChecked,
  };
}

// Why something is done, for the history.

import { textField } from "./fields.js";
import { containsToken } from "./search-text.js";

const MAX_REASON = 500;
const LEAKED = /\b(leak|stole|steal|theft|compromis|expos|publish|public repo)/i;

/** A reason, which may stay empty. `problem(prefix)`: a reason is in the history, and of a revocation in an address. */
export function reasonField({ hint = "Kept in the history.", placeholder = "Moved to another server" } = {}) {
  const base = textField({ name: "reason", label: "Reason", isOptional: true, maxlength: MAX_REASON, hint, placeholder });
  return {
    ...base,
    problem: (prefix) => (containsToken(base.read(), prefix) ? "This looks like a key itself. Enter a reason without it." : ""),
  };
}

/** Whether a reason says that others may have the key. */
export const saysLeaked = (reason) => LEAKED.test(reason);

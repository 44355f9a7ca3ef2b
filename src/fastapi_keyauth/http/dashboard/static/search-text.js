// What of a search may leave the page. People paste whole tokens to find out which key they belong to. A request has at
// most the id of a token in its URL, because URLs end up in access logs.

const LINE_BREAKS = /[\r\n\t\u200b-\u200d\u2060\ufeff]+/g;
const MAX_SENT = 100;
/** An id has 12 characters, so a longer run may be a part of a secret. */
const LONG_RUN = /[0-9A-Za-z]{16,}/;
const FEWEST_DIGITS = 4;
const FEWEST_CHARACTERS = 16;
const SPACED_OUT = /^(?=.*\d)(?=.*[a-z])(?=.*[A-Z])\w{40,}$/;

/**
 * Take what was typed or pasted apart.
 * `q`: what may be sent, and may be in the page's address. `local`: what could hold a secret, which is only compared with
 * the keys that the page has loaded; else "". `prefix`: that of this product's tokens.
 */
export function readSearch(typed, prefix) {
  const text = typed.replace(LINE_BREAKS, "").trim();
  const id = findId(text, prefix);
  if (id) return { q: id, local: "" };
  return couldBeSecret(text) ? { q: "", local: text } : { q: text.slice(0, MAX_SENT), local: "" };
}

/** Whether a text contains a token or a secret, so that it must not be part of a URL or of a name. */
export function containsToken(text, prefix) {
  const isToken = new RegExp(`(?:^|[^0-9A-Za-z])(?:${prefix}_[0-9a-z]{1,16}_[0-9A-Za-z]{12}_|ks_)[0-9A-Za-z]{8,}`);
  const runs = text.match(/[0-9A-Za-z]{40,}/g) ?? [];
  return isToken.test(text) || runs.some((run) => /\d/.test(run) && /[a-z]/.test(run) && /[A-Z]/.test(run));
}

/** Whether a search that stays in the page finds a key: by its name, its id, or the last characters of a secret. */
export function matchesLocally(key, local) {
  if (key.name.toLowerCase().includes(local.toLowerCase()) || local.includes(key.id)) return true;
  const tail = /[0-9A-Za-z]{4}(?=[^0-9A-Za-z]*$)/.exec(local)?.[0];
  return [key.hint, ...key.secrets.map((secret) => secret.hint)].some((hint) => tail && hint.endsWith(`…${tail}`));
}

// The public part of a token or of a hint. Behind a prefix of this product even a damaged rest does not matter.
function findId(text, prefix) {
  const own = new RegExp(`(?:^|[^0-9A-Za-z])${prefix}_[0-9a-z]{1,16}_([0-9A-Za-z]{12})`).exec(text);
  const other = /(?:^|[^0-9A-Za-z])[0-9A-Za-z]{1,16}_[0-9a-z]{1,16}_([0-9A-Za-z]{12})_(?:…|[0-9A-Za-z]{16,})/.exec(text);
  return (own ?? other)?.[1];
}

function couldBeSecret(text) {
  if (SPACED_OUT.test(text.replaceAll(" ", ""))) return true;
  return text.split(" ").some((word) => {
    const digits = word.replace(/\D/g, "").length;
    return LONG_RUN.test(word) || (word.length >= FEWEST_CHARACTERS && digits >= FEWEST_DIGITS);
  });
}

// The management routes, and the few routes that belong to this page alone.

import { config } from "./config.js";
import { sessionToken } from "./session.js";

const SESSION_CODES = new Set(["invalid_session", "missing_session", "missing_credentials"]);

let sessionEnded = () => {};

/** Called when the server no longer knows the session. */
export function onSessionEnded(callback) {
  sessionEnded = callback;
}

/** A refusal of the server, in words that can be shown. */
export class ApiError extends Error {
  /**
   * fields: form field -> sentence, from a 422 or from a problem that concerns one field.
   * holdsWithin: seconds, if a change is stored but not yet effective on all workers.
   * token: that of a rotation which is stored nevertheless.
   */
  constructor(status, body) {
    super(sentenceOf(status, body));
    this.status = status;
    this.code = body.code ?? "";
    this.fields = fieldsOf(status, body);
    this.holdsWithin = body.holds_within_s;
    this.token = body.token;
  }

  get isSessionEnd() {
    return this.status === 401 && SESSION_CODES.has(this.code);
  }

  get isStored() {
    return this.holdsWithin !== undefined;
  }
}

function sentenceOf(status, body) {
  if (typeof body.detail === "string") return body.detail;
  if (status === 422) return "Some values are not valid.";
  if (status === 0) return "The server cannot be reached. Check your connection and try again.";
  return "That did not work. Try again in a moment.";
}

function fieldsOf(status, body) {
  const fields = {};
  if (status === 422 && Array.isArray(body.detail)) {
    for (const { loc, msg } of body.detail) {
      const [, name, at, part] = Array.isArray(loc) ? loc : [];
      if (typeof name !== "string" || name in fields) continue;
      const where = name === "limits" && Number.isInteger(at) ? `Limit ${at + 1}${part ? `, ${part}` : ""}: ` : "";
      fields[name] = where + asSentence(msg);
    }
  }
  // Only administrators may set a limit above the default, so the answer names their scope.
  const missing = body.missing_scopes;
  if (body.code === "insufficient_scope" && Array.isArray(missing)) {
    fields[missing.length === 1 && missing[0] === "admin" ? "limits" : "scopes"] = body.detail;
  }
  return fields;
}

function asSentence(message) {
  const text = String(message).replace(/^Value error, /, "");
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

async function send(method, path, { body, query, signal, accept = "application/json" } = {}) {
  const token = sessionToken();
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const asked = new URLSearchParams(query).toString();
  let answer;
  try {
    answer = await fetch(config.dataPath + path + (asked && `?${asked}`), {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      // The routes read no cookie, but a proxy in front of the application may.
      credentials: "same-origin",
      signal,
    });
  } catch (error) {
    throw unreachable(error);
  }
  if (answer.ok) return answer;
  const error = new ApiError(answer.status, await contentOf(answer));
  if (error.isSessionEnd) sessionEnded();
  throw error;
}

const unreachable = (error) => (error.name === "AbortError" ? error : new ApiError(0, {}));

async function contentOf(answer) {
  return answer.json().catch((error) => {
    if (error.name === "AbortError") throw error;
    return {};
  });
}

async function request(method, path, details) {
  const answer = await send(method, path, details);
  return answer.status === 204 ? null : contentOf(answer);
}

/** A file: {name, content}. Not a link to it: the session token is sent in a header, and never in a URL. */
async function download(path, details) {
  const answer = await send("GET", path, details);
  const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "download";
  try {
    return { name, content: await answer.blob() };
  } catch (error) {
    throw unreachable(error);
  }
}

const one = (id) => `keys/${encodeURIComponent(id)}`;
const oneOwner = (id) => `keys/owners/${encodeURIComponent(id)}`;

export const api = {
  /** The choices of this user, and the owners that they act for. */
  async options() {
    const options = await request("GET", "options");
    const owners = options.acts_for_owners ? (await request("GET", "keys/owners")).items : [];
    return { ...options, owners };
  },
  owner: (id, signal) => request("GET", oneOwner(id), { signal }),
  setOwner: (id, body) => request("PUT", oneOwner(id), { body }),
  suspendOwner: (id, reason) => request("POST", `${oneOwner(id)}/suspend`, { body: reason ? { reason } : {} }),
  resumeOwner: (id) => request("POST", `${oneOwner(id)}/resume`, { body: {} }),
  list: (query, signal) => request("GET", "keys", { query, signal }),
  get: (id, signal) => request("GET", one(id), { signal }),
  create: (body) => request("POST", "keys", { body }),
  change: (id, body) => request("PATCH", one(id), { body }),
  rotate: (id, body) => request("POST", `${one(id)}/rotate`, { body }),
  revoke: (id, reason) => request("DELETE", one(id), { query: reason ? { reason } : {} }),
  /** What is left of the limits of a key and of its owner. */
  limits: (id, signal) => request("GET", `limits/${encodeURIComponent(id)}`, { signal }),
  usage: (id, hours, signal) => request("GET", `${one(id)}/usage`, { query: { hours }, signal }),
  events: (id, query, signal) => request("GET", `${one(id)}/events`, { query, signal }),
  usageReport: (query, signal) => request("GET", "keys/usage", { query, signal }),
  usageFile: (query, signal) => download("keys/usage", { query: { ...query, format: "csv" }, signal, accept: "text/csv" }),
  audit: (query, signal) => request("GET", "keys/audit", { query, signal }),
  /** Usage of many keys in one request, and which of their owners are suspended. */
  usageOfMany: (ids, signal) => request("GET", "usage", { query: ids.map((id) => ["ids", id]), signal }),
};

/** What a curl line requests: the application's example, else the key's own row, which any key may read. */
export function exampleUrl() {
  return new URL(config.examplePath || `${config.dataPath}keys/current`, document.baseURI.replace(/#.*/, "")).href;
}

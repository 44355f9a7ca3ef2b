// Run with the address of the application and a session. It is also checked against the types that are generated.
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

declare const process: { argv: string[] };
const [, , baseUrl, session] = process.argv;
const { POST, PATCH, DELETE } = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${session}` } });

// All that may be omitted is optional; what a server fills in is not.
const patch: components["schemas"]["KeyPatch"] = {};
const owner: components["schemas"]["OwnerFields"] = {};
const limit: components["schemas"]["Limit"] = { name: "hour", limit: 5, per: "hour" };
// @ts-expect-error: a key has a name
const nameless: components["schemas"]["NewKey"] = {};
// @ts-expect-error: the token is shown only when a key is created or rotated
const token: components["schemas"]["KeyOut"]["token"] = "";

function check<T>(answer: { data?: T; error?: components["schemas"]["Problem"] | unknown }): T {
    if (answer.data === undefined) throw new Error(JSON.stringify(answer.error));
    return answer.data;
}

const created = check(await POST("/api-keys", { body: { name: "generated", limits: [limit], metadata: { team: "x" } } }));
const params = { path: { id: created.id } };
const disabled = check(await PATCH("/api-keys/{id}", { params, body: { enabled: false } }));
const renamed = check(await PATCH("/api-keys/{id}", { params, body: { ...patch, name: "renamed" } }));
const enabled = check(await PATCH("/api-keys/{id}", { params, body: { enabled: true } }));
const rotated = check(await POST("/api-keys/{id}/rotate", { params, body: {} }));
const revoked = await DELETE("/api-keys/{id}", { params });
const { error } = await POST("/api-keys/{id}/rotate", { params });
console.log(JSON.stringify({ created, disabled, renamed, enabled, rotated, revoked: revoked.response.status, error }));

"""OpenAPI as it should read: what FastAPI cannot say of two schemes together, and the answers of a refusal.

FastAPI writes each security dependency as an alternative. Ours carry names of their own for what they mean, and this
module puts the real requirement in their place: both schemes in one object where both are wanted.
"""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI

from fastapi_keyauth.http.problem_details import MEDIA_TYPE

KEY = "ApiKey"
SESSION = "Session"
KEY_AND_SESSION = "ApiKey+Session"
OPTIONAL_KEY = "ApiKey?"
EITHER = "ApiKey|Session"
_OURS = (KEY, SESSION, KEY_AND_SESSION, OPTIONAL_KEY, EITHER)

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_DESCRIPTIONS = {
    "401": "No valid credentials, or not from here",
    "403": "Valid credentials that are not enough",
    "429": "The key's hourly cap is used up, or the address is blocked",
    "503": "The credentials cannot be checked now",
}
_PROBLEM = {
    "title": "Problem",
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What to do, in one sentence."},
        "code": {"type": "string", "description": "What programs compare."},
        "retry_after_s": {"type": "integer", "description": "Seconds after which it is worth trying again."},
        "missing_scopes": {"type": "array", "items": {"type": "string"}},
        "holds_within_s": {"type": "integer", "description": "Seconds within which a stored change holds everywhere."},
    },
}


def replace_schema(app: FastAPI, header_name: str, is_protected: Callable[[str], bool]) -> None:
    """Have the application's schema completed, whenever it is asked for."""
    make_schema = app.openapi

    def openapi() -> dict[str, Any]:
        return complete_schema(make_schema(), header_name, is_protected)

    # FastAPI documents this replacement ("Extending OpenAPI").
    app.openapi = openapi  # type: ignore[method-assign]


def complete_schema(schema: dict[str, Any], header_name: str, is_protected: Callable[[str], bool]) -> dict[str, Any]:
    """Put real requirements, schemes and refusals into a schema, in place. Doing it twice changes nothing.

    Args:
        schema: what FastAPI made.
        header_name: the header of API tokens.
        is_protected: path -> whether a middleware wants a key there.
    """
    if schema.get("components", {}).get("schemas", {}).get("Problem") is _PROBLEM:
        return schema
    uses_ours = False
    for path, item in schema.get("paths", {}).items():
        for method in _METHODS:
            if method in item:
                uses_ours |= _complete_operation(item[method], is_protected(path))
    if uses_ours:
        components = schema.setdefault("components", {})
        schemes = components.setdefault("securitySchemes", {})
        for name in _OURS:
            schemes.pop(name, None)
        schemes[KEY] = {"type": "apiKey", "in": "header", "name": header_name}
        schemes[SESSION] = {"type": "http", "scheme": "bearer"}
        components.setdefault("schemas", {})["Problem"] = _PROBLEM
    return schema


def _complete_operation(operation: dict[str, Any], is_protected: bool) -> bool:
    found: dict[str, list[str]] = {}
    foreign = []
    for requirement in operation.get("security", []):
        ours = [name for name in requirement if name in _OURS]
        if len(requirement) == 1 and ours:
            found.setdefault(ours[0], []).extend(requirement[ours[0]])
        else:
            foreign.append(requirement)
    if is_protected:
        found.setdefault(KEY, [])
    if not found:
        return any(KEY in requirement or SESSION in requirement for requirement in foreign)
    operation["security"] = _requirements(found) + foreign
    responses = operation.setdefault("responses", {})
    takes_key = any(name != SESSION for name in found)
    for status in ("401", "403", "429", "503") if takes_key else ("401", "403", "503"):
        responses.setdefault(
            status,
            {
                "description": _DESCRIPTIONS[status],
                "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        )
    return True


def _requirements(found: dict[str, list[str]]) -> list[dict[str, list[str]]]:
    """Everything that is wanted in one object; alternatives only where the dependency says so."""
    wanted: dict[str, list[str]] = {}
    for name in (KEY, KEY_AND_SESSION):
        if name in found:
            wanted[KEY] = _merged(wanted.get(KEY, []), found[name])
    for name in (SESSION, KEY_AND_SESSION):
        if name in found:
            wanted[SESSION] = _merged(wanted.get(SESSION, []), found[name])
    if EITHER in found and not wanted:
        return [{KEY: found[EITHER]}, {SESSION: []}]
    if OPTIONAL_KEY in found and KEY not in wanted:
        return [{**wanted, KEY: found[OPTIONAL_KEY]}, dict(wanted)]
    return [wanted]


def _merged(left: list[str], right: list[str]) -> list[str]:
    return list(dict.fromkeys([*left, *right]))

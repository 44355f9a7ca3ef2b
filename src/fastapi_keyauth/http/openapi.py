"""The OpenAPI document: requirements that FastAPI cannot state, and the responses of refusals.

FastAPI lists security dependencies as alternatives, by the names of their schemes. Our dependencies have internal names
that encode their requirements. This module replaces these names with the real requirement, for example with both
schemes in one object. Components that the application defined under the same public names stay unchanged.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI

from fastapi_keyauth.http.problem_renderer import MEDIA_TYPE
from fastapi_keyauth.settings.settings import KeyAuthSettings

KEY = "ApiKey"
SESSION = "Session"
KEY_AND_SESSION = "ApiKeyAndSession"
OPTIONAL_KEY = "OptionalApiKey"
EITHER = "ApiKeyOrSession"
MANAGER = "Manager"
_KINDS = (KEY, SESSION, KEY_AND_SESSION, OPTIONAL_KEY, EITHER, MANAGER)

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_ILLEGAL = re.compile(r"[^A-Za-z0-9._-]")
_STRING, _INTEGER = {"type": "string"}, {"type": "integer"}
_DESCRIPTIONS = {
    "401": "No valid credentials were sent, or they cannot be used from here",
    "403": "The credentials are valid but not sufficient",
    "429": "A rate limit is used up, or the address is blocked",
    "503": "The credentials cannot be checked, or a change is stored but not yet effective everywhere",
}
_RETRY_AFTER = {"description": "Seconds after which a retry makes sense.", "schema": _INTEGER}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {
        "WWW-Authenticate": {"description": "One challenge for each scheme that the route accepts.", "schema": _STRING}
    },
    "429": {
        "Retry-After": _RETRY_AFTER,
        "x-should-retry": {
            "description": "`false` if the wait is longer than 60 s: SDKs must not sleep inside the call.",
            "schema": _STRING,
        },
    },
    "503": {"Retry-After": _RETRY_AFTER},
}
_LIMIT_HEADERS = {
    "ietf": {
        "RateLimit-Policy": "Rate limits: name, quota (`q`) and window in seconds (`w`).",
        "RateLimit": "State of the rate limits: name, remaining units (`r`) and seconds until the reset (`t`).",
    },
    "legacy": {
        "X-RateLimit-Limit": "Units in a window.",
        "X-RateLimit-Remaining": "Remaining units.",
        "X-RateLimit-Reset": "End of the window, in seconds since 1970.",
    },
}
_PROBLEM = {
    "title": "Problem",
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "error"],
    "properties": {
        "type": {"type": "string", "format": "uri", "examples": ["urn:fastapi-keyauth:rate_limit_exceeded"]},
        "title": {"type": "string", "examples": ["Rate limit exceeded"]},
        "status": {"type": "integer", "examples": [429]},
        "detail": {"type": "string", "description": "What happened and what to do, for people."},
        "code": {
            "type": "string",
            "description": "Identifier for programs.",
            "examples": ["rate_limit_exceeded"],
        },
        "retry_after_s": {"type": "integer", "description": "Seconds after which a retry makes sense."},
        "missing_scopes": {"type": "array", "items": _STRING, "description": "Scopes that the credentials lack."},
        "holds_within_s": {
            "type": "integer",
            "description": "Seconds within which a stored change is effective everywhere.",
        },
        "error": {
            "type": "object",
            "description": "The same sentence and code, where SDKs of compatible APIs expect them.",
            "required": ["message", "type", "code"],
            "properties": {"message": _STRING, "type": _STRING, "code": _STRING},
        },
    },
}


_INTERNAL = re.compile(rf"KeyAuth\.({'|'.join(_KINDS)})\.([0-9a-f]*)\.(.+)")


def internal_name(kind: str, header_name: str, scopes: Iterable[str] = ()) -> str:
    """Return the name under which FastAPI documents a dependency. It is valid in OpenAPI even if it is not replaced.

    Args:
        kind: What the dependency requires.
        header_name: The setting ``header_name``.
        scopes: What it requires by itself: FastAPI documents only the scopes of ``Security``.
    """
    return f"KeyAuth.{kind}.{' '.join(scopes).encode().hex()}.{_ILLEGAL.sub('_', header_name)}"


class SchemaCompleter:
    """Completes the OpenAPI documents of applications.

    Args:
        settings: Settings of the KeyAuth.
    """

    def __init__(self, settings: KeyAuthSettings) -> None:
        self._header_name = _ILLEGAL.sub("_", settings.header_name)
        also = " It may also be sent as `Authorization: Bearer <key>`." if settings.accept_bearer_keys else ""
        self._schemes: dict[str, dict[str, Any]] = {
            KEY: {
                "type": "apiKey",
                "in": "header",
                "name": settings.header_name,
                "description": f"An API key, starting with `{settings.key_prefix}_`.{also}",
            },
            SESSION: {"type": "http", "scheme": "bearer", "description": "A user's session token."},
        }
        self._headers = _headers_of(settings.rate_limit_headers)

    def attach(self, app: FastAPI, is_protected: Callable[[str], bool]) -> None:
        """Complete the application's document whenever it is generated. A second call changes nothing.

        It is called again at startup, since the application may have replaced ``app.openapi`` in between.

        Args:
            app: The application.
            is_protected: Whether the middleware requires a key for a path.
        """
        generate = app.openapi
        inner: Any = generate
        while inner is not None:
            if getattr(inner, "completer", None) is self:
                return
            inner = getattr(inner, "__wrapped__", None)
        completed: dict[str, Any] | None = None

        def openapi() -> dict[str, Any]:
            nonlocal completed
            document = generate()
            if document is not completed:  # FastAPI keeps the document until a route is added
                self.complete(document, is_protected)
                completed = document
            return document

        vars(openapi).update(completer=self, __wrapped__=generate)  # read above
        # FastAPI documents this replacement ("Extending OpenAPI").
        app.openapi = openapi  # type: ignore[method-assign]

    def _read_internal(self, name: str) -> tuple[str, list[str]] | None:
        """Return the kind and the scopes in an ``internal_name`` of this KeyAuth. None for any other name."""
        ours = _INTERNAL.fullmatch(name)
        if ours is None or ours[3] != self._header_name:
            return None
        return ours[1], bytes.fromhex(ours[2]).decode().split()

    def complete(self, document: dict[str, Any], is_protected: Callable[[str], bool]) -> None:
        """Add the real requirements, schemes and refusals to a document, in place. A second call changes nothing."""
        components: dict[str, Any] = document.get("components", {})
        schemes = components.get("securitySchemes", {})
        for name in filter(self._read_internal, list(schemes)):
            del schemes[name]
        names = {kind: _free_name(kind, scheme, schemes) for kind, scheme in self._schemes.items()}
        problem = _free_name("Problem", _PROBLEM, components.get("schemas", {}))
        reference = {MEDIA_TYPE: {"schema": {"$ref": f"#/components/schemas/{problem}"}}}
        used: set[str] = set()
        for path, item in document.get("paths", {}).items():
            for method in _METHODS:
                if method in item:
                    used |= self._complete_operation(item[method], is_protected(path), names, reference)
        if used:
            components = document.setdefault("components", {})
            components.setdefault("schemas", {})[problem] = _PROBLEM
            components.setdefault("securitySchemes", {}).update(
                {names[kind]: self._schemes[kind] for kind in (KEY, SESSION) if kind in used}
            )

    def _complete_operation(
        self, operation: dict[str, Any], is_protected: bool, names: dict[str, str], reference: dict[str, Any]
    ) -> set[str]:
        """Complete one operation. Return the schemes that it uses: ``KEY``, ``SESSION``."""
        found: dict[str, list[str]] = {}
        foreign = []
        for requirement in operation.get("security", []):
            name, scopes = next(iter(requirement.items()), ("", []))
            ours = self._read_internal(name) if len(requirement) == 1 else None
            if ours is None:
                foreign.append(requirement)
            else:
                kind, own = ours
                found[kind] = list(dict.fromkeys([*found.get(kind, []), *own, *scopes]))
        if is_protected and not any(names[KEY] in requirement for requirement in foreign):
            found.setdefault(KEY, [])
        if not found:
            return set()
        requirements = _requirements(found)
        used = {kind for requirement in requirements for kind in requirement}
        operation["security"] = [
            {names[kind]: scopes for kind, scopes in requirement.items()} for requirement in requirements
        ] + foreign
        responses = operation.setdefault("responses", {})
        for status in ("401", "403", "429", "503") if KEY in used else ("401", "403", "503"):
            responses.setdefault(status, self._refusal(status, reference))
        if MANAGER in found:
            for status in ("404", "409"):
                if status in responses:
                    responses[status]["content"] = reference
        return used

    def _refusal(self, status: str, reference: dict[str, Any]) -> dict[str, Any]:
        refusal: dict[str, Any] = {"description": _DESCRIPTIONS[status], "content": reference}
        headers = self._headers.get(status)
        return refusal | {"headers": headers} if headers else refusal


def _headers_of(mode: str) -> dict[str, dict[str, Any]]:
    """Return the documented headers by status, with the rate limit headers that the setting selects."""
    forms = ("ietf", "legacy") if mode == "both" else (mode,)
    limits = {
        name: {"description": description, "schema": _STRING}
        for form in forms
        for name, description in _LIMIT_HEADERS.get(form, {}).items()
    }
    return {**_HEADERS, "429": {**_HEADERS["429"], **limits}}


def _free_name(name: str, definition: dict[str, Any], taken: dict[str, Any]) -> str:
    """Return the name of a component: ``name``, unless the application uses it for something else."""
    candidates: Iterable[str] = (name, f"KeyAuth{name}", *(f"KeyAuth{name}{number}" for number in range(2, 100)))
    return next(candidate for candidate in candidates if taken.get(candidate, definition) == definition)


def _requirements(found: dict[str, list[str]]) -> list[dict[str, list[str]]]:
    """Return all requirements in one object, or alternatives if the dependency accepts them."""
    required: dict[str, list[str]] = {}
    for scheme in (KEY, SESSION):
        for kind in (scheme, KEY_AND_SESSION):
            if kind in found:
                required[scheme] = list(dict.fromkeys([*required.get(scheme, []), *found[kind]]))
    if not required:
        if EITHER in found:
            return [{KEY: found[EITHER]}, {SESSION: found[EITHER]}]
        if MANAGER in found:
            return [{KEY: found[MANAGER]}, {SESSION: []}]
    if OPTIONAL_KEY in found and KEY not in required:
        return [{**required, KEY: found[OPTIONAL_KEY]}, dict(required)]
    return [required]

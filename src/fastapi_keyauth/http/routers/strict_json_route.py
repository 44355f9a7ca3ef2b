"""A route that checks credentials first, and then accepts only JSON that can be written back in a response.

Python's parser accepts values that JSON responses cannot hold (NaN, lone surrogates), and FastAPI refuses some
malformed bodies with 400. This route refuses all of them with 422, and reads no body before the caller is
authenticated. A 422 has FastAPI's form, but repeats only short values.
"""

import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import MutableHeaders
from starlette.types import Message, Receive, Scope, Send

from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.http.routers.bodies import BodyTooLarge, read_body

MAX_BODY_BYTES = 65_536
"""Maximum size of a body, about ten times the longest sensible one."""
MAX_INPUT_CHARACTERS = 200
MAX_NAME_CHARACTERS = 100
"""Maximum length of a field or parameter name in a 422."""
MAX_PROBLEMS = 100
"""Maximum number of errors in one 422, since a body of 64 KiB can have thousands of them."""


def strict_json_route(authenticate: Callable[[Request], Awaitable[object]]) -> type[APIRoute]:
    """Return a route class that awaits ``authenticate`` before it reads anything. It raises to refuse the caller."""

    methods_at: dict[str, set[str]] = {}

    class StrictJsonRoute(APIRoute):
        def __init__(self, path: str, *args: Any, **options: Any) -> None:
            super().__init__(path, *args, **options)
            methods_at.setdefault(path, set()).update(self.methods or ())

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["method"] not in (self.methods or ()):
                # RFC 9110 section 15.5.6: all methods of the path. Starlette names only those of the first route.
                headers = {"Allow": ", ".join(sorted(methods_at[self.path])), "Cache-Control": "no-store"}
                raise HTTPException(405, headers=headers)
            await super().handle(scope, receive, _without_caching(send))

        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()
            takes_body = self.body_field is not None
            known = {field.alias for field in self.dependant.query_params}
            in_path = {field.alias for field in self.dependant.path_params}

            async def checked(request: Request) -> Response:
                await authenticate(request)
                check_query(request, known)
                if takes_body:
                    body = await _read_json(request)
                    request = Request(request.scope, _replay(body))
                try:
                    return await handler(request)
                except InvalidField as error:
                    place = "path" if error.field in in_path else "body" if takes_body else "query"
                    loc = (place, error.field)
                    raise RequestValidationError([{"type": "value_error", "loc": loc, "msg": error.message}]) from None
                except RequestValidationError as error:
                    problems = error.errors()[:MAX_PROBLEMS]
                    raise RequestValidationError([_without_much_input(problem) for problem in problems]) from None

            return checked

    return StrictJsonRoute


def check_query(request: Request, known: set[str]) -> None:
    """Reject unknown query parameters, so that ``?overlap_s=0`` is not mistaken for the field of the body.

    Raises:
        RequestValidationError: With a 422 that names the unknown parameter.
    """
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        problem = {"type": "extra_forbidden", "loc": _named(("query", unknown[0])), "msg": "No such parameter"}
        raise RequestValidationError([problem])


async def _read_json(request: Request) -> bytes:
    """Return the body, which must be empty, or JSON that can be written back.

    Raises:
        RequestValidationError: With a 422 at ``body``.
    """
    try:
        body = await read_body(request, MAX_BODY_BYTES)
    except BodyTooLarge:
        raise _refused(f"larger than {MAX_BODY_BYTES} bytes") from None
    if not body:
        return body
    try:
        # Decoded first: Python's parser would also take UTF-16 and UTF-32, which RFC 8259 section 8.1 excludes.
        json.dumps(json.loads(body.decode("utf-8")), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except RecursionError:
        raise _refused("too deeply nested") from None
    except ValueError:
        raise _refused("not valid JSON in UTF-8") from None
    return body


def _without_caching(send: Send) -> Send:
    """Return a ``send`` that forbids caches to store the response, including errors.

    Shared caches know that responses to ``Authorization`` are private (RFC 9111 section 3.5), but not those to
    ``api-key``.
    """

    async def send_uncached(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Cache-Control"] = "no-store"
        await send(message)

    return send_uncached


def _refused(reason: str) -> RequestValidationError:
    return RequestValidationError([{"type": "json_invalid", "loc": ("body",), "msg": f"The body is {reason}"}])


def _replay(body: bytes) -> Callable[[], Awaitable[Message]]:
    """Return a ``receive`` that returns a body that was already read."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _without_much_input(problem: dict[str, Any]) -> dict[str, Any]:
    """Return a validation error with a short input at most: long ones are slow to write, and some contain a token."""
    kept = {name: value for name, value in problem.items() if name != "input"}
    if problem.get("type") == "model_attributes_type" and tuple(problem["loc"]) == ("body",):
        # Without a JSON content type, FastAPI reads the body as text. `curl -d` sends such requests.
        kept["msg"] = "The body must be a JSON object, sent with 'Content-Type: application/json'"
    kept["loc"] = _named(problem["loc"])
    value = problem.get("input")
    if isinstance(value, str):
        kept["input"] = redact(value[:MAX_INPUT_CHARACTERS])
    elif isinstance(value, int | float):
        kept["input"] = value
    return kept


def _named(place: Iterable[str | int]) -> tuple[str | int, ...]:
    """Return the location of an error, redacted: the name of a field may be a token in the wrong place."""
    return tuple(redact(part[:MAX_NAME_CHARACTERS]) if isinstance(part, str) else part for part in place)

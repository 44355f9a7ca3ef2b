"""A route that takes nothing but JSON which can be answered: credentials first, then the body.

Python's parser lets through what no JSON answer can hold (NaN, lone surrogates), and FastAPI answers some broken bodies
with 400. Here all of them are a 422, and none is looked at before the caller is known.
"""

import json
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from fastapi_keyauth.errors import InvalidField


def strict_json_route(authenticate: Callable[[Request], Awaitable[object]]) -> type[APIRoute]:
    """A route class. ``authenticate`` is awaited before a body is read; it raises to refuse the caller."""

    class StrictJsonRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handler = super().get_route_handler()
            takes_body = self.body_field is not None

            async def checked(request: Request) -> Response:
                if takes_body:
                    await authenticate(request)
                    check_json(await request.body())
                try:
                    return await handler(request)
                except InvalidField as error:
                    loc = ("body" if takes_body else "query", error.field)
                    problem = {"type": "value_error", "loc": loc, "msg": error.message, "input": None}
                    raise RequestValidationError([problem]) from None

            return checked

    return StrictJsonRoute


def check_json(body: bytes) -> None:
    """The body must be empty, or JSON that can be written again.

    Raises:
        RequestValidationError: a 422 at ``body``.
    """
    if not body:
        return
    try:
        json.dumps(json.loads(body), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (ValueError, RecursionError) as error:
        reason = "too deeply nested" if isinstance(error, RecursionError) else "not valid JSON in UTF-8"
        problem = {"type": "json_invalid", "loc": ("body",), "msg": f"The body is {reason}", "input": {}}
        raise RequestValidationError([problem]) from None

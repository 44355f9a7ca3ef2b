"""Routes that are built on first use, since a test calls one or two of its app's twenty routes.

FastAPI analyzes the dependencies of a route and builds a Pydantic validator for each parameter and each response: when
the route is added, and again when the router that includes it gets its first request. For the management routes that
took 30 ms. Other processes, such as the workers and the example, run FastAPI as it is; so does `make test THOROUGH=1`.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import pytest
from fastapi.routing import APIRoute, _EffectiveRouteContext
from pydantic import TypeAdapter
from pydantic.warnings import UnsupportedFieldAttributeWarning
from starlette._utils import get_route_path
from starlette.routing import Match, compile_path, get_name


class LazyAdapter:
    """A TypeAdapter that is built when one of its attributes is first read."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._arguments = args, options

    @cached_property
    def _built(self) -> TypeAdapter[Any]:
        args, options = self._arguments
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsupportedFieldAttributeWarning)  # as FastAPI does where it builds them
            return TypeAdapter(*args, **options)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # `copy` and `pickle` look for methods that this class does not have.
            raise AttributeError(name)
        return getattr(self._built, name)


class LazyContext:
    """A route of an included router, built when a path first matches it."""

    starlette_route = None

    def __init__(self, *, original_route: Any, include_context: Any) -> None:
        self.original_route = original_route
        self.path = include_context.path_for(original_route)
        self.name = original_route.name
        self._include_context = include_context
        self._pattern, _, _ = compile_path(self.path)

    @cached_property
    def _built(self) -> Any:
        return _from_api_route(original_route=self.original_route, include_context=self._include_context)

    def matches(self, scope: Any) -> tuple[Match, Any]:
        if self._pattern.match(get_route_path(scope)):
            return self._built.matches(scope)  # type: ignore[no-any-return]
        return Match.NONE, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._built, name)


_from_api_route = _EffectiveRouteContext.from_api_route
_initialize = APIRoute.__init__


def initialize_later(route: APIRoute, path: str, endpoint: Any, **options: Any) -> None:
    """Initialize a route of this package when a missing attribute is first read, and any other route immediately."""
    if type(route) is APIRoute:
        _initialize(route, path, endpoint, **options)
        return
    route.path, route.endpoint = path, endpoint
    route.methods = {method.upper() for method in options["methods"]}
    route.name = options.get("name") or get_name(endpoint)
    vars(route)["options_of_later"] = options


def find_missing(route: APIRoute, name: str) -> Any:
    """Initialize the route if that is still to be done, and return the attribute."""
    options = vars(route).pop("options_of_later", None)
    if options is None:
        raise AttributeError(name)
    _initialize(route, route.path, route.endpoint, **options)
    return getattr(route, name)


def make_routes_lazy(patch: pytest.MonkeyPatch) -> None:
    """Make FastAPI build routes and validators on first use."""
    patch.setattr("fastapi._compat.v2.TypeAdapter", LazyAdapter)
    patch.setattr(_EffectiveRouteContext, "from_api_route", LazyContext)
    patch.setattr(APIRoute, "__init__", initialize_later)
    patch.setattr(APIRoute, "__getattr__", find_missing, raising=False)

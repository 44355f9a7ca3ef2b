"""Startup check: parameters of routes whose dependency FastAPI has silently dropped.

With ``from __future__ import annotations`` FastAPI evaluates annotations in the module's namespace. If one names
something else, such as a local variable of ``create_app`` or an import under ``TYPE_CHECKING``, the parameter becomes a
query parameter (https://github.com/fastapi/fastapi/issues/13056). The route answers everybody with a 422 or, if the
parameter has a default, is open to everybody.
"""

import inspect
from collections.abc import Iterable, Iterator
from typing import Any, ForwardRef

from pydantic.fields import FieldInfo
from starlette.applications import Starlette

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.http.routes import iterate_dependants, iterate_routes


def check_annotations(apps: Iterable[Starlette]) -> None:
    """Check that no route has lost a dependency.

    Raises:
        SetupError: If the annotation of a parameter cannot be evaluated. It names the route and the parameter.
    """
    for app in apps:
        for path, dependant in iterate_routes(app):
            for name, annotation in _find_unresolved(dependant):
                raise SetupError(
                    f"The route {path} has a parameter {name!r} whose annotation {annotation!r} FastAPI cannot "
                    "evaluate, so a dependency in it is ignored. Remove `from __future__ import annotations`, import "
                    f"the names at run time, or write the dependency as a default: {name} = Depends(...)."
                )


def _find_unresolved(dependant: Any) -> Iterator[tuple[str, str]]:
    for inner in iterate_dependants(dependant):
        for field in (*inner.query_params, *inner.body_params):
            annotation = field.field_info.annotation
            if isinstance(annotation, ForwardRef) and not _has_explicit_default(inner.call, field.name):
                yield field.name, annotation.__forward_arg__


def _has_explicit_default(call: Any, name: str) -> bool:
    """Return whether the default says what the parameter is, such as ``Query()``: then no dependency was meant."""
    parameter = inspect.signature(call).parameters.get(name)
    return parameter is not None and isinstance(parameter.default, FieldInfo)

"""Startup check: parameters of routes whose dependency FastAPI has silently dropped.

With ``from __future__ import annotations`` FastAPI evaluates annotations in the module's namespace. If one names
something else, such as a local variable of ``create_app`` or an import under ``TYPE_CHECKING``, the parameter becomes a
query parameter (https://github.com/fastapi/fastapi/issues/13056). The route answers everybody with a 422 or, if the
parameter has a default, is open to everybody.

Not every such parameter has lost a dependency: ``amount: Decimal | None = None``, with ``Decimal`` imported under
``TYPE_CHECKING``, works for requests that do not send it. So only annotations in which a dependency is found stop the
start.
"""

import ast
import importlib.util
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, ForwardRef

from pydantic.fields import FieldInfo
from starlette.applications import Starlette

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.http.routes import iterate_dependants, iterate_routes

_DEPENDENCY = re.compile(r"\b(?:Depends|Security)\b")
_NAME = re.compile(r"[^\W\d]\w*")


def check_annotations(apps: Iterable[Starlette]) -> None:
    """Check that no route has lost a dependency.

    Raises:
        SetupError: If an annotation with a dependency cannot be evaluated. It names the route and the parameter.
    """
    for app in apps:
        for path, dependant in iterate_routes(app):
            for name, annotation in _find_lost(dependant):
                raise SetupError(
                    f"The route {path} has a parameter {name!r} whose annotation {annotation!r} FastAPI cannot "
                    "evaluate, so a dependency in it is ignored. Remove `from __future__ import annotations`, import "
                    f"the names at run time, or write the dependency as a default: {name} = Depends(...)."
                )


def _find_lost(dependant: Any) -> Iterator[tuple[str, str]]:
    for inner in iterate_dependants(dependant):
        for field in (*inner.query_params, *inner.body_params):
            annotation = field.field_info.annotation
            if isinstance(annotation, ForwardRef) and not _has_explicit_default(inner.call, field.name):
                text = annotation.__forward_arg__
                if _names_dependency(text, inspect.getmodule(inspect.unwrap(inner.call))):
                    yield field.name, text


def _has_explicit_default(call: Any, name: str) -> bool:
    """Return whether the default says what the parameter is, such as ``Query()``: then no dependency was meant."""
    parameter = inspect.signature(call).parameters.get(name)
    return parameter is not None and isinstance(parameter.default, FieldInfo)


def _names_dependency(annotation: str, module: ModuleType | None) -> bool:
    """Return whether a dependency is in an annotation, or in what a name in it stands for somewhere in the module."""
    if _DEPENDENCY.search(annotation):
        return True
    values = {} if module is None else _read_values(module)
    texts, seen = [annotation], set[str]()
    while texts:
        for name in set(_NAME.findall(texts.pop())) - seen:
            seen.add(name)
            for value in values.get(name, ()):
                if _DEPENDENCY.search(value):
                    return True
                texts.append(value)
    return False


def _read_values(module: ModuleType) -> dict[str, list[str]]:
    """Return what names are set to anywhere in a module, also in its functions and under ``TYPE_CHECKING``, as text."""
    values: dict[str, list[str]] = {}
    try:
        nodes = ast.walk(ast.parse(inspect.getsource(module)))
    except (OSError, TypeError, SyntaxError):  # a module without readable source
        return values
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                values.setdefault(name, []).append(ast.unparse(value))
            case ast.AnnAssign(target=ast.Name(name), value=ast.expr() as value):
                values.setdefault(name, []).append(ast.unparse(value))
            case ast.ImportFrom(module=origin, names=names, level=level):
                source = _find_module(origin or "", level, module)
                for alias in names:
                    imported = _describe_type(getattr(source, alias.name, None))
                    values.setdefault(alias.asname or alias.name, []).append(imported)
    return values


def _describe_type(imported: Any) -> str:
    """Return an alias such as ``Annotated[...]`` as text, with its ``Depends``; of anything else an empty text."""
    return repr(imported) if type(imported).__module__ in ("typing", "types") else ""


def _find_module(name: str, level: int, importer: ModuleType) -> ModuleType | None:
    """Return the module that a ``from`` import names, if it has been imported by anybody."""
    try:
        return sys.modules.get(importlib.util.resolve_name("." * level + name, importer.__package__ or ""))
    except ImportError:  # a relative import of a module outside of any package, never carried out
        return None

"""Everything that users can name: classes, members, parameters, settings, routes, commands, codes and events."""

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from typing import Any, get_args

import typer
from fastapi import FastAPI

import fastapi_keyauth
from fastapi_keyauth import EventKind, KeyAuth, KeyAuthSettings, testing
from fastapi_keyauth.cli.app import app as command_line
from fastapi_keyauth.http.problem_details import TABLE
from fastapi_keyauth.settings.check_warnings import SENTENCES

SERVICES = ("keys", "sessions", "blocks", "leaks", "owners", "usage")
"""Attributes of a KeyAuth whose methods users call."""

_ENTRY = r"^(?P<indent> *){name}(?: \([^)]*\))?:(?P<text>.*(?:\n(?:(?P=indent) +.*|\s*))*)"


def build_auth() -> KeyAuth:
    """Return a KeyAuth with the default settings, not started."""
    return KeyAuth(KeyAuthSettings(_env_file=None))


def find_classes() -> dict[str, type]:
    """Return every class that users meet: the exported ones, and those of ``auth.keys`` and its like."""
    exported = {name: getattr(fastapi_keyauth, name) for name in fastapi_keyauth.__all__}
    auth = build_auth()
    services = {f"auth.{name}": type(getattr(auth, name)) for name in SERVICES if hasattr(auth, name)}
    return {name: kind for name, kind in exported.items() if inspect.isclass(kind)} | services


def find_functions() -> dict[str, Any]:
    """Return every exported function, and those of the testing kit."""
    named = {name: getattr(fastapi_keyauth, name) for name in fastapi_keyauth.__all__}
    named |= {f"testing.{name}": value for name, value in vars(testing).items() if _is_own(name, value)}
    return {name: value for name, value in named.items() if inspect.isfunction(value)}


def _is_own(name: str, value: Any) -> bool:
    return not name.startswith("_") and getattr(value, "__module__", None) == testing.__name__


def find_members(kind: type) -> Iterator[str]:
    """Yield the public attributes and methods of a class of this package, also inherited ones."""
    found = set[str]()
    for base in kind.__mro__:
        if base.__module__.startswith("fastapi_keyauth"):
            found |= {*vars(base), *inspect.get_annotations(base), *_find_documented_attributes(base)}
    yield from sorted(name for name in found if not name.startswith(("_", "model_")))


def _find_documented_attributes(kind: type) -> list[str]:
    """Return the names under Attributes in the docstring of a class: some are set by its ``__init__`` alone."""
    _, _, section = (inspect.getdoc(kind) or "").partition("Attributes:\n")
    return re.findall(r"^ {4}(\w+)(?: \([^)]*\))?:", re.split(r"^\S", section, flags=re.MULTILINE)[0], re.MULTILINE)


def find_parameters(function: Any) -> Iterator[str]:
    """Yield the names of a function's parameters."""
    try:
        names = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    yield from (name for name in names if name != "self")


def collect() -> dict[str, list[str]]:
    """Return all names, by kind."""
    names: dict[str, list[str]] = {"names": list(fastapi_keyauth.__all__), "members": [], "parameters": []}
    for name, function in find_functions().items():
        names["parameters"] += [f"{name}({parameter})" for parameter in find_parameters(function)]
    for name, kind in find_classes().items():
        for member in find_members(kind):
            names["members"].append(f"{name}.{member}")
            value = inspect.getattr_static(kind, member, None)
            if inspect.isfunction(value):
                names["parameters"] += [f"{name}.{member}({parameter})" for parameter in find_parameters(value)]
    names["parameters"] += [f"KeyAuth({parameter})" for parameter in find_parameters(KeyAuth.__init__)]
    names["settings"] = list(KeyAuthSettings.model_fields)
    names["routes"] = [f"{method} {path}" for method, path, _ in _find_routes()]
    names["queries"] = [f"{method} {path} {name}" for method, path, names_ in _find_routes() for name in names_]
    names["commands"] = sorted(_find_commands("", typer.main.get_command(command_line)))
    names["codes"] = sorted(row.code for row in TABLE.values())
    names["events"] = sorted(get_args(EventKind))
    names["warnings"] = sorted(SENTENCES)
    return names


def _find_routes() -> Iterator[tuple[str, str, list[str]]]:
    """Yield method, path and query parameters of every management route."""
    app = FastAPI()
    auth = build_auth()
    auth.install(app)
    app.include_router(auth.keys_router, prefix="/api-keys")
    for path, methods in app.openapi()["paths"].items():
        for method, operation in methods.items():
            parameters = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            yield method.upper(), path, sorted(parameters)


def _find_commands(words: str, command: Any) -> Iterator[str]:
    if not hasattr(command, "commands"):
        yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from _find_commands(f"{words} {name}".strip(), inner)


def find_description(kind: type, member: str) -> str:
    """Return the docstring of a member of a class, or its entry in the docstring of the class."""
    value = inspect.getattr_static(kind, member, None)
    if isinstance(value, classmethod | staticmethod):
        value = value.__func__
    if inspect.isfunction(value) or isinstance(value, property) or type(value).__name__ == "cached_property":
        return value.__doc__ or ""
    for base in kind.__mro__:
        if not base.__module__.startswith("fastapi_keyauth"):
            continue
        found = find_entry(inspect.getdoc(base) or "", member) or _find_attribute_docstring(base, member)
        if found:
            return found
    return ""


def find_entry(docstring: str, name: str) -> str:
    """Return the text of an entry under Args or Attributes."""
    match = re.search(_ENTRY.format(name=re.escape(name)), docstring, re.MULTILINE)
    return match["text"] if match else ""


def _find_attribute_docstring(kind: type, member: str) -> str:
    """Return the string that follows an attribute in the source of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        is_named = isinstance(statement, ast.AnnAssign) and getattr(statement.target, "id", None) == member
        if is_named and isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            return str(following.value.value)
    return ""

"""Every regular expression of the package runs in linear time on any input."""

import ast
import importlib
import itertools
import pkgutil
import re
import string
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import fastapi_keyauth
from fastapi_keyauth import TOKEN_PATTERN

SHORT, LONG = 1_000, 8_000
QUICK_S = 0.004
"""What takes no longer than this for `LONG` characters is not looked at more closely."""
BOUND = 3
"""Times linear: eight times the input may take 24 times as long. A quadratic one takes 64 times."""
LOCALS = {"prefix": "ka", "header": "api\\-key"}


Expression = tuple[str, str, int, str]
"""Where it stands, the pattern, its flags, and the method that is called."""


def expressions() -> Iterator[Expression]:
    """Return every use of every pattern: found in the source, evaluated in its module."""
    for module in modules():
        source = Path(module.__file__ or "").read_text("utf-8")
        if "import re\n" not in source:
            continue
        nodes = list(ast.walk(ast.parse(source)))
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _is_use(node.func):
                scope = {**LOCALS, **vars(module)}
                flags = [_value(word.value, scope) for word in node.keywords if word.arg == "flags"]
                place = f"{module.__name__.removeprefix('fastapi_keyauth.')}:{node.lineno}"
                pattern = _value(node.args[0], scope)
                methods = {node.func.attr} if node.func.attr != "compile" else _uses(nodes, node)
                if isinstance(pattern, bytes):  # the same expression for text, one character for each byte
                    pattern = pattern.decode("latin-1")
                for method in sorted(methods):
                    yield place, pattern, flags[0] if flags else 0, method


def modules() -> Iterator[ModuleType]:
    """Yield every module of the package that can be imported without extras."""
    package = Path(fastapi_keyauth.__file__).parent
    for found in pkgutil.walk_packages([str(package)], "fastapi_keyauth."):
        if not found.ispkg and ".versions." not in found.name and not found.name.endswith((".env", "__main__")):
            yield importlib.import_module(found.name)


def _is_use(function: ast.Attribute) -> bool:
    return isinstance(function.value, ast.Name) and function.value.id == "re" and function.attr != "escape"


def _uses(nodes: list[ast.AST], compiled: ast.Call) -> set[str]:
    """Return the methods that are called on compiled patterns, directly or by a name."""
    uses = set()
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.value is compiled:
            uses.add(node.attr)
        if isinstance(node, ast.Assign) and node.value is compiled and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            uses |= {
                use.attr
                for use in nodes
                if isinstance(use, ast.Attribute) and isinstance(use.value, ast.Name) and use.value.id == name
            }
    return uses or {"search"}


def _value(expression: ast.expr, scope: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(expression), "<pattern>", "eval"), scope)  # noqa: S307  # of our own source


EXPRESSIONS = list(expressions())


def hostile_texts(pattern: str) -> list[Callable[[int], str]]:
    """Texts of a given length that make backtracking expressive: one or two characters that the pattern knows, over
    and over, with an end that fits nothing."""
    plain = re.sub(r"\\[xu][0-9a-f]+|\\.", "", pattern)
    known = sorted({*"a0_", *(set(plain) & set(string.punctuation + string.ascii_letters))})
    pieces = [*known[:24], *("".join(pair) for pair in itertools.islice(itertools.permutations(known[:9], 2), 40))]
    pieces += ["ka_live_", "ks_", "a_a_", "ka_a_AAAAAAAAAAAA_", "://a:@", "?token=", "1.", "::", "--workers "]
    makers: list[Callable[[int], str]] = []
    for piece in pieces:
        makers.append(lambda size, piece=piece: (piece * (size // len(piece) + 1))[:size])  # type: ignore[misc]  # a default is no argument
        makers.append(lambda size, piece=piece: (piece * (size // len(piece) + 1))[:size] + "\x00")  # type: ignore[misc]  # a default is no argument
    return makers


def seconds(pattern: re.Pattern[str], method: str, text: str, times: int) -> float:
    """Return the shortest duration of one call, in CPU time of this thread, which load does not affect."""
    arguments = ("", text) if method.startswith("sub") else (text,)
    best = float("inf")
    for _ in range(times):
        began = time.thread_time()
        list(pattern.finditer(text)) if method == "finditer" else getattr(pattern, method)(*arguments)
        best = min(best, time.thread_time() - began)
    return best


def test_the_expressions_are_found() -> None:
    assert len(EXPRESSIONS) >= 10
    assert TOKEN_PATTERN.pattern in {pattern for _, pattern, _, _ in EXPRESSIONS}


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=[f"{place} {method}" for place, _, _, method in EXPRESSIONS])
def test_an_expression_takes_time_in_proportion(expression: Expression) -> None:
    place, pattern, flags, method = expression
    compiled = re.compile(pattern, flags)
    for make in hostile_texts(pattern):
        if seconds(compiled, method, make(SHORT), 1) < QUICK_S and seconds(compiled, method, make(LONG), 1) < QUICK_S:
            continue
        short, long = (seconds(compiled, method, make(size), 5) for size in (SHORT, LONG))
        assert long < QUICK_S or long / short < BOUND * LONG / SHORT, (place, make(40), short, long)


def test_a_slow_expression_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "SHORT", 500)
    monkeypatch.setitem(globals(), "LONG", 4_000)
    with pytest.raises(AssertionError):
        test_an_expression_takes_time_in_proportion(("nowhere", r"a+$", 0, "search"))

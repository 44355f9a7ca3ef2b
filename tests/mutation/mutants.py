"""Mutants: one small change each, of Python by its syntax tree and of Lua by its lines."""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_ARITHMETIC: dict[type[ast.operator], str] = {ast.Add: "-", ast.Sub: "+", ast.Mult: "//", ast.FloorDiv: "*"}
_LUA_OPERATORS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "~=", "~=": "==", "and": "or", "or": "and"}
_LUA_TOKEN = re.compile(r"'[^']*'|--.*|[<>=~]=|(?<!=)[<>](?!=)|\b(?:and|or)\b|(?<![\w.])\d+(?![\w.])|(?<= )[+-](?= )")


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: The file, below the package.
        line: Its line, from 1.
        place: The function or script that is changed.
        before: The text that is replaced.
        after: The text in its place.
        source: The whole file after the change.
        number: Which one of several equal changes in the same place, from 0.
    """

    path: str
    line: int
    place: str
    before: str
    after: str
    source: str
    number: int

    @property
    def id(self) -> str:
        """Eight hexadecimal digits that stay the same if other places of the file change."""
        parts = "\0".join((self.path, self.place, self.before, self.after, str(self.number)))
        return hashlib.sha256(parts.encode()).hexdigest()[:8]

    @property
    def change(self) -> str:
        """Return the change as one line."""
        return f"{' '.join(self.before.split())} -> {' '.join(self.after.split())}"


def find_mutants(package: Path, path: str) -> list[Mutant]:
    """Return every mutant of one file, in the order of its lines."""
    source = (package / path).read_text("utf-8")
    changes = _lua_changes(source) if path.endswith(".lua") else _Finder(source).changes()
    seen: Counter[tuple[str, str, str]] = Counter()
    mutants = []
    for start, end, after, place in sorted(set(changes)):
        before = source[start:end]
        key = (place, before, after)
        line = source.count("\n", 0, start) + 1
        mutated = source[:start] + after + source[end:]
        mutants.append(Mutant(path, line, place, before, after, mutated, seen[key]))
        seen[key] += 1
    return mutants


Change = tuple[int, int, str, str]
"""Start and end in the source, the text in place of it, and the function."""


class _Finder(ast.NodeVisitor):
    """Finds what to change in Python. Annotations, decorators, docstrings and log lines stay as they are."""

    def __init__(self, source: str) -> None:
        self._source = source
        starts = [0]
        for line in source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self._lines = source.splitlines(keepends=True)
        self._starts = starts
        self._place: list[str] = []
        self._found: list[Change] = []

    def changes(self) -> list[Change]:
        self.visit(ast.parse(self._source))
        return self._found

    def _span(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._offset(node.lineno, node.col_offset), self._offset(node.end_lineno, node.end_col_offset)

    def _offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())  # columns count bytes

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self._source[start:end]

    def _replace(self, node: ast.AST, after: str) -> None:
        start, end = self._span(node)
        self._found.append((start, end, after, ".".join(self._place) or "module"))

    def _between(self, left: ast.expr, right: ast.expr, after: str) -> None:
        """Replace the operator between two operands, which has no position of its own."""
        start, end = self._span(left)[1], self._span(right)[0]
        gap = self._source[start:end]
        operator = re.search(r"[^\s()#]+(?:\s+(?:in|not)(?=\s))?", gap)
        assert operator, gap
        place = ".".join(self._place) or "module"
        self._found.append((start + operator.start(), start + operator.end(), after, place))

    def _enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        self._place.append(node.name)
        for child in node.body[1:] if _is_docstring(node.body[0]) else node.body:
            self.visit(child)
        self._place.pop()

    def visit(self, node: ast.AST) -> None:
        """Visit a node; functions and classes with their names."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self._enter(node)
        else:
            super().visit(node)

    def visit_Module(self, node: ast.Module) -> None:
        for child in node.body:
            if not isinstance(child, ast.Import | ast.ImportFrom) and not _is_docstring(child):
                self.visit(child)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._replace(node, "pass")
        self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._replace(node, "pass")
        self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if _is_docstring(node) or self._text(node).startswith("logger."):
            return
        self._replace(node, "pass")
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._replace(node, "pass")

    def visit_Raise(self, node: ast.Raise) -> None:
        self._replace(node, "pass")  # its message is for people

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            return
        if not (isinstance(node.value, ast.Constant) and node.value.value is None):
            self._replace(node.value, "None")
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negate(node.test)
        self.generic_visit(node)

    def _negate(self, test: ast.expr) -> None:
        # The comparisons and the operand of `not` are changed anyway.
        if not isinstance(test, ast.Compare | ast.UnaryOp):
            self._replace(test, f"not ({self._text(test)})")

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace(node, f"({self._text(node.operand)})")
        self.visit(node.operand)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between(left, right, "or" if isinstance(node.op, ast.And) else "and")
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
            self._between(left, right, _COMPARISONS[type(operator)])
            if isinstance(right, ast.Constant) and isinstance(right.value, str):
                self._replace(right, repr(right.value + "~"))
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if type(node.op) in _ARITHMETIC and not any(isinstance(n, ast.JoinedStr) for n in (node.left, node.right)):
            self._between(node.left, node.right, _ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, bool):
            self._replace(node, str(not node.value))
        elif isinstance(node.value, int | float):
            self._replace(node, repr(node.value + 1))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Leave sentences and names unchanged."""


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _lua_changes(source: str) -> Iterator[Change]:
    place, offset = "script", 0
    for line in source.splitlines(keepends=True):
        code = line.strip()
        if found := re.match(r"local function (\w+)", code):
            place = found[1]
        if not code.startswith(("--", "local function", "for ")):
            yield from _lua_line(line, offset, place)
        if line.startswith("end"):
            place = "script"
        offset += len(line)


def _lua_line(line: str, offset: int, place: str) -> Iterator[Change]:
    call = re.match(r"(\s*)(redis\.call\(.*\))\s*$", line)
    if call:
        yield offset + call.start(2), offset + call.end(2), "do end", place
    for token in _LUA_TOKEN.finditer(line):
        text = token[0]
        if text.startswith(("'", "--")):
            continue
        after = _LUA_OPERATORS.get(text) or {"+": "-", "-": "+"}.get(text) or str(int(text) + 1)
        yield offset + token.start(), offset + token.end(), after, place

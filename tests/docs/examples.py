"""Runs the Python blocks of a page, hidden ones included, in the order of the page and in one namespace."""

from __future__ import annotations

import ast
import asyncio
import inspect
import types
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from sybil import Document, Example
from sybil.evaluators.python import pad
from sybil.parsers.markdown import CodeBlockParser

MODULE = "main"
"""What the pages call the module that their blocks make up: `from main import auth`, `uvicorn main:app`."""


@asynccontextmanager
async def visiting(app: Any, address: str | None = "203.0.113.7") -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app whose lifespan runs. Hidden blocks find it in their namespace."""
    peer: Any = None if address is None else (address, 50_000)
    transport = httpx.ASGITransport(app=app, client=peer, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://testserver") as client,
    ):
        yield client


class Page:
    """A page that runs. `module` holds the names that its blocks have made so far."""

    def __init__(self, path: Path) -> None:
        self.module = types.ModuleType(MODULE)
        self.module.__dict__["visiting"] = visiting
        self._runner = asyncio.Runner()
        self._document = Document.parse(str(path), CodeBlockParser("python", self._evaluate))

    def run(self) -> int:
        """Run every block; the first that fails raises, with the page's own line numbers. Gives how many there are."""
        count = 0
        with self._runner:
            for example in self._document.examples():
                example.evaluate()
                count += 1
        return count

    def _evaluate(self, example: Example) -> None:
        """As Sybil's own evaluator; and a block may await at its top level, as under `python -m asyncio`."""
        source = pad(example.parsed, example.line + example.parsed.line_offset)
        code = compile(source, example.path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        names = self.module.__dict__
        if code.co_flags & inspect.CO_COROUTINE:
            self._runner.run(types.FunctionType(code, names)())
        else:
            exec(code, names)  # noqa: S102  # running the page is the point

"""Validators of routes that are built on first use, since a test calls one or two of its app's twenty routes.

FastAPI builds a Pydantic validator for each parameter and each response of a route: when the route is added, and again
when its router is included. That took a tenth of the time of tests that create an app. Other processes, such as the
workers and the example, run FastAPI as it is; so does `make test THOROUGH=1`.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic.warnings import UnsupportedFieldAttributeWarning


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


def make_routes_lazy(patch: pytest.MonkeyPatch) -> None:
    """Make FastAPI build validators on first use."""
    patch.setattr("fastapi._compat.v2.TypeAdapter", LazyAdapter)

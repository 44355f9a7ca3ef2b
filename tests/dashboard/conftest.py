"""Fixtures of the browser tests: one site and one browser for a session, a visitor with keys of their own for a test.

A test that has a `visitor` runs in the browser's thread. Whatever it does, an error on the console, an uncaught
exception or a violation of the Content-Security-Policy fails it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Any

import pytest

from tests.dashboard.chromium import NAMES, Chromium, find_chromium
from tests.dashboard.site import Site
from tests.dashboard.visitor import Visitor

_numbers = count(1)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The product, served. Tests share it, so each has an owner of its own."""
    served = Site(tmp_path_factory.mktemp("site"))
    yield served
    served.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser."""
    executable = find_chromium()
    if executable is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)}")
    browser = Chromium(executable)
    yield browser
    browser.close()


@pytest.fixture
def make_visitor(site: Site, chromium: Chromium) -> Iterator[Callable[..., Visitor]]:
    """Makes visitors: `make_visitor(width=360, color_scheme="dark", is_logged_in=False)`.

    `context` names the browser context: tests that change what tabs share use another one.
    """
    made: list[Visitor] = []

    def make(context: str = "shared", bypass_csp: bool = False, **options: Any) -> Visitor:
        tab = chromium.tab(context, bypass_csp=bypass_csp)
        visitor = Visitor(site, tab, f"user-{next(_numbers)}@example.com", **options)
        made.append(visitor)
        return visitor

    yield make
    problems = []
    for visitor in made:
        chromium.run(visitor.leave)
        chromium.run(partial(chromium.give_back, visitor.page))
        problems += visitor.problems
    assert problems == []


@pytest.fixture
def visitor(make_visitor: Callable[..., Visitor], chromium: Chromium) -> Visitor:
    """Yield a user who is logged in and has no keys yet."""
    return chromium.run(make_visitor)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the tests that use the browser in its thread."""
    chromium = pyfuncitem.funcargs.get("chromium")
    if not isinstance(chromium, Chromium):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    chromium.run(lambda: pyfuncitem.obj(**arguments))
    return True

"""One Chromium for all the browser tests of a session, in a thread of its own.

Playwright's synchronous API brings an event loop that counts as running for the whole thread; the tests of this
repository run loops of their own in the main one.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    # Drawn by plain software: what stands in for a graphics card takes as much of a processor as all the rest.
    "--disable-gpu",
    "--disable-gpu-compositing",
    "--disable-gpu-rasterization",
    "--disable-software-rasterizer",
    "--disable-quic",
    "--js-flags=--no-opt",  # A page lives for a second or two, in which optimized code does not pay for itself.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 40_000
"""A guard against hanging, long enough for a busy machine."""
T = TypeVar("T")


def find_chromium() -> str | None:
    """Return the path of an installed Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """A browser and its thread, which alone may use it."""

    def __init__(self, executable: str) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="chromium")
        self._playwright: Playwright = self.run(lambda: sync_playwright().start())
        launch: Callable[[], Browser] = lambda: self._playwright.chromium.launch(  # noqa: E731  # it is run elsewhere
            executable_path=executable, args=list(FLAGS)
        )
        self._browser: Browser = self.run(launch)
        self._contexts: dict[str, BrowserContext] = {}
        self._tabs: defaultdict[BrowserContext, list[Page]] = defaultdict(list)
        expect.set_options(timeout=TIMEOUT_MS)

    def tab(self, context: str = "shared", **options: Any) -> Page:
        """Return a blank tab, which other tests may have used. Call it in the browser's thread alone.

        To open a new one takes longer than to load the page.

        Args:
            context: Name of what tabs share: a cache, local storage, and messages between tabs. Tests that change what
                is shared use another name.
            options: Options of a new context.
        """
        found = self._context(context, **options)
        return self._tabs[found].pop() if self._tabs[found] else found.new_page()

    def give_back(self, tab: Page) -> None:
        """Keep a blank tab for other tests. Close it if a test left a listener in it."""
        # Playwright has no other way to ask; it has these two listeners itself.
        if {"close", "crash"} >= set(tab._impl_obj.event_names()):
            self._tabs[tab.context].append(tab)
        else:
            tab.close()

    def _context(self, name: str, **options: Any) -> BrowserContext:
        if name not in self._contexts:
            context = self._contexts[name] = self._browser.new_context(
                locale="en-GB",
                timezone_id="Europe/Berlin",
                reduced_motion="reduce",
                permissions=["clipboard-read", "clipboard-write"],
                **options,
            )
            context.set_default_timeout(TIMEOUT_MS)
        return self._contexts[name]

    def run(self, work: Callable[[], T]) -> T:
        """Run something in the browser's thread."""
        return self._thread.submit(work).result()

    def close(self) -> None:
        """Stop the browser and the thread."""
        self.run(self._browser.close)
        self.run(self._playwright.stop)
        self._thread.shutdown()

"""A user of the key page: a browser tab, and the steps that many tests share."""

from __future__ import annotations

import re
from typing import Any, Literal

from playwright.sync_api import ConsoleMessage, Error, Locator, Page, expect

from fastapi_keyauth import TOKEN_PATTERN, CreatedKey
from tests.dashboard.site import BLANK, PAGE, Site

# What a browser says of any 4xx: refusals are what some tests are about.
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (4\d\d|503)")


class Visitor:
    """A tab of one user. `problems` has the errors that the browser reported."""

    def __init__(
        self,
        site: Site,
        tab: Page,
        user: str,
        *,
        width: int = 1280,
        color_scheme: Literal["light", "dark"] = "light",
        transparency: Literal["reduce", "no-preference"] = "reduce",
        forced_colors: bool = False,
        is_logged_in: bool = True,
        scopes: tuple[str, ...] = ("*",),
    ) -> None:
        self.site = site
        self.user = user
        self.problems: list[str] = []
        self.page = tab
        self._go_blank()
        self.page.set_viewport_size({"width": width, "height": 900})
        self._devtools = tab.context.new_cdp_session(tab)
        self.prefer(color_scheme, transparency, forced_colors)
        self.page.on("console", self._note_console)
        self.page.on("pageerror", self._note_error)
        if is_logged_in:
            self.hand_over(site.run(site.auth.sessions.create(user, scopes)))

    def leave(self) -> None:
        """Leave the tab blank, with nothing of this user's."""
        self.page.unroute_all()
        self._go_blank()
        self.page.evaluate("sessionStorage.clear()")
        self.page.remove_listener("console", self._note_console)
        self.page.remove_listener("pageerror", self._note_error)
        self._devtools.send("Page.resetNavigationHistory")
        self._devtools.detach()

    def prefer(
        self,
        color_scheme: Literal["light", "dark"],
        transparency: Literal["reduce", "no-preference"] = "reduce",
        forced_colors: bool = False,
    ) -> None:
        """What the user has told the operating system, which may change while the page is open.

        To blur what lies behind a dialog takes more of a processor than all else that the tests draw, so they ask for
        less transparency. Playwright has no option for that, and Chromium takes all the features at once.
        """
        features = {
            "prefers-color-scheme": color_scheme,
            "prefers-reduced-motion": "reduce",
            "prefers-reduced-transparency": transparency,
            "forced-colors": "active" if forced_colors else "none",
        }
        chosen = [{"name": name, "value": value} for name, value in features.items()]
        self._devtools.send("Emulation.setEmulatedMedia", {"features": chosen})

    def hand_over(self, session: str, item: str = "keyauth.session") -> None:
        """Store the session where the page reads it, as the application's own login does."""
        self.page.evaluate("([item, session]) => sessionStorage.setItem(item, session)", [item, session])

    def open(self, path: str = PAGE) -> None:
        """Open the page."""
        self.page.goto(self.site.url + path)

    def open_list(self) -> None:
        """Open the list and wait for what it shows."""
        self.open()
        expect(self.page.locator("tr[data-key], .nothing > h2").first).to_be_visible()

    def open_key(self, created: CreatedKey) -> None:
        """Open a key's own page."""
        self.open(f"{PAGE}#/keys/{created.key.id}")
        expect(self.heading).to_have_text(created.key.name)

    def make_key(self, name: str = "test key", **fields: Any) -> CreatedKey:
        """Create a key of this user without the page."""
        return self.site.create_key(self.user, name, **fields)

    def row(self, name: str) -> Locator:
        """The row of a key."""
        return self.page.locator("tr[data-key]", has=self.page.get_by_role("link", name=name, exact=True))

    def names(self) -> list[str]:
        """The names in the list, from top to bottom."""
        return self.page.locator(".key-name").all_inner_texts()

    def choose(self, name: str, action: str) -> None:
        """An action from the menu of a row."""
        self.page.get_by_role("button", name=f"Actions for {name}").click()
        self.page.get_by_role("menuitem", name=action).click()

    def press(self, name: str) -> None:
        """A button, of the open dialog if there is one."""
        place: Page | Locator = self.dialog if self.dialog.count() else self.page
        place.get_by_role("button", name=name, exact=True).first.click()

    def start_new_key(self, name: str = "prod-api-server", scope: str | None = "files:read") -> None:
        """Open the dialog for a new key, name it and choose a scope."""
        self.press("Create key")
        self.field("Name").fill(name)
        if scope is not None:
            self.field(scope).check()

    def field(self, label: str) -> Locator:
        """A field of the open dialog."""
        return self.dialog.get_by_label(label, exact=True)

    def fill_limit(self, at: int, **values: str) -> None:
        """Fill a line of the limits in the open dialog: text fields by label, choices by label."""
        row = self.dialog.get_by_role("group", name=f"Limit {at}")
        for label in ("Name", "Number"):
            if label in values:
                row.get_by_label(label, exact=True).fill(values[label])
        for label in ("Unit", "Per", "Window"):
            if label in values:
                row.get_by_label(label, exact=True).select_option(values[label])
        if "Seconds" in values:
            row.get_by_label("Seconds", exact=True).fill(values["Seconds"])

    def error_at(self, field: str) -> Locator:
        """The sentence at a field, by the field's name in the API."""
        return self.dialog.locator(f"[data-field={field}] .error:visible")

    @property
    def dialog(self) -> Locator:
        """The open dialog."""
        return self.page.locator("dialog[open]").last

    @property
    def heading(self) -> Locator:
        """The page's first heading."""
        return self.page.locator("h1")

    @property
    def shown_token(self) -> str:
        """The token that is being shown."""
        token: str = self.dialog.locator(".token").inner_text()
        assert TOKEN_PATTERN.fullmatch(token), "no whole token is shown"
        return token

    def everything_kept(self) -> str:
        """Return the state of the page in the browser: elements with values, storage, address, history state."""
        kept: str = self.page.evaluate(
            """() => JSON.stringify([
                document.documentElement.outerHTML,
                [...document.querySelectorAll("input, textarea, select, output")].map((control) => control.value),
                {...localStorage}, {...sessionStorage}, location.href, history.state, document.title, name,
                performance.getEntries().map((entry) => entry.name),
            ])"""
        )
        return kept

    def _go_blank(self) -> None:
        """Open a blank page of the site, which has the storage of the site."""
        blank = self.site.url + BLANK
        if self.page.url != blank:
            self.page.goto(blank)

    def _note_error(self, error: Error) -> None:
        self.problems.append(f"uncaught: {error}")

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not _REFUSED.match(message.text):
            self.problems.append(f"console: {message.text}")

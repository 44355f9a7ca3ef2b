"""How the key page fits the application around it."""

import re
from dataclasses import dataclass, fields

from fastapi_keyauth.errors import SetupError

_STORAGE_ITEM = re.compile(r"[\x21-\x7e]{1,100}")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardOptions:
    """What ``auth.dashboard_router`` knows of its application. All of it is public: the page holds it.

    Paths are paths of the application that the router is included in, such as ``/login``; the page makes them relative
    to itself, so a mount or a proxy in front changes nothing.

    Attributes:
        product: name at the top of the page; the page says only "API keys" where it is empty.
        home_path: where that name leads.
        session_item: where the session token lies in the browser: this item of ``sessionStorage``, else of
            ``localStorage``. The application's own log-in writes it; the page's form writes ``sessionStorage``.
        log_in_path: a route that takes ``POST {user_field, password_field}`` as JSON and answers ``{token_field}``. The
            page then has a form to log in.
        log_in_page: a page of the application that logs in and writes ``session_item``: the page links to it.
        log_out_path: a route that takes ``POST`` with the session as Bearer and ends it.
        user_field: the name of the field that says who logs in; ``email`` gets the keyboard for addresses.
        password_field: the name of the field that proves it.
        token_field: the name of the session token in the answer.
        example_path: what the ``curl`` line beside a new token asks for; where it is empty, the key's own row.
        stylesheet_path: a stylesheet of the application that is read after the page's own.

    Raises:
        SetupError: a path that is none, or a name that cannot be one.
    """

    product: str = ""
    home_path: str = ""
    session_item: str = "keyauth.session"
    log_in_path: str = ""
    log_in_page: str = ""
    log_out_path: str = ""
    user_field: str = "email"
    password_field: str = "password"  # noqa: S105  # the name of a field, not what stands in it
    token_field: str = "session_token"  # noqa: S105  # the same
    example_path: str = ""
    stylesheet_path: str = ""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value: str = getattr(self, name)
            if name.endswith(("_path", "_page")) and value and not is_path(value):
                raise SetupError(f"DashboardOptions.{name} must be a path of the application, such as /login.")
            if name.endswith("_field") and not _FIELD.fullmatch(value):
                raise SetupError(f"DashboardOptions.{name} must be the name of a JSON field.")
        if not _STORAGE_ITEM.fullmatch(self.session_item):
            raise SetupError("DashboardOptions.session_item must have 1 to 100 characters without spaces.")


def is_path(value: str) -> bool:
    """Whether it is a path of this origin: ``//host`` and what browsers take for it would be another one's."""
    return value.startswith("/") and not value.startswith("//") and value.isprintable() and "\\" not in value

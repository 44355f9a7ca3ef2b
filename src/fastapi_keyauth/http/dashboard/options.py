"""How the key page fits the application around it."""

import re
from dataclasses import dataclass, fields

from fastapi_keyauth.errors import SetupError

_STORAGE_ITEM = re.compile(r"[\x21-\x7e]{1,100}")
_FIELD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DashboardOptions:
    """What ``auth.dashboard_router`` knows about its application. All of it is public: the page contains it.

    Paths are paths of the application that the router is included in, such as ``/login``. The page makes them relative
    to itself, so they also work below a mount or behind a proxy.

    Attributes:
        product: Name at the top of the page. If it is empty, the page says "API keys".
        home_path: Target of that name.
        session_item: Name of the storage item with the session token. The page reads it from ``sessionStorage``, then
            from ``localStorage``. The application's own login writes it; the page's form writes ``sessionStorage``.
        log_in_path: A route that takes ``POST {user_field, password_field}`` as JSON and returns ``{token_field}``. The
            page then has a login form.
        log_in_form: True if ``log_in_path`` takes the standard form of OAuth 2 instead (RFC 6749, section 4.3), which
            FastAPI's ``OAuth2PasswordRequestForm`` reads: ``username`` and ``password`` as a form, ``access_token`` in
            the response. The three names of fields do not apply then. Added in 0.2.
        log_in_page: A page of the application that logs in and writes ``session_item``. The page links to it.
        log_out_path: A route that takes ``POST`` with the session as Bearer and ends it.
        user_field: Name of the JSON field for the user. With ``email``, the form asks for an email address.
        password_field: Name of the JSON field for the password.
        token_field: Name of the session token in the response.
        example_path: Path that the ``curl`` line beside a new token requests. If it is empty, the key's own row.
        stylesheet_path: A stylesheet of the application, loaded after the page's own.

    Raises:
        SetupError: If a path or a name is invalid.
    """

    product: str = ""
    home_path: str = ""
    session_item: str = "keyauth.session"
    log_in_path: str = ""
    log_in_form: bool = False
    log_in_page: str = ""
    log_out_path: str = ""
    user_field: str = "email"
    password_field: str = "password"  # noqa: S105  # the name of a field, not its value
    token_field: str = "session_token"  # noqa: S105  # the name of a field, not its value
    example_path: str = ""
    stylesheet_path: str = ""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name.endswith(("_path", "_page")) and value and not is_path(value):
                raise SetupError(f"DashboardOptions.{name} must be a path of the application, such as /login.")
            if name.endswith("_field") and not _FIELD.fullmatch(value):
                raise SetupError(f"DashboardOptions.{name} must be the name of a JSON field.")
        if not _STORAGE_ITEM.fullmatch(self.session_item):
            raise SetupError("DashboardOptions.session_item must have 1 to 100 characters without spaces.")


def is_path(value: str) -> bool:
    """Return whether a value is a path of this origin. ``//host`` and its spellings would lead to another one."""
    return value.startswith("/") and not value.startswith("//") and value.isprintable() and "\\" not in value

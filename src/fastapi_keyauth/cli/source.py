"""Where a command takes its settings from: the environment, or an application that has them in code."""

from __future__ import annotations

import importlib
import inspect
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fastapi_keyauth.cli.output import say
from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.errors import SetupError

if TYPE_CHECKING:
    from fastapi_keyauth.settings.settings import KeyAuthSettings

APP_VARIABLE = "KEYAUTH_APP"

app_reference: ContextVar[str | None] = ContextVar("app_reference", default=None)
"""Value of ``--app`` or ``KEYAUTH_APP``: ``module:attribute``. None if neither was given."""


def load_settings() -> KeyAuthSettings:
    """Read the settings of the named application, or otherwise those of the environment.

    Raises:
        SetupError: If a setting is invalid, or the application has no KeyAuth.
    """
    from fastapi_keyauth.settings.settings import KeyAuthSettings

    reference = app_reference.get()
    return KeyAuthSettings() if reference is None else _settings_of(reference)


def load_and_announce_settings(*, as_json: bool) -> KeyAuthSettings:
    """Call ``load_settings``, and say whose settings they are unless they are those of the environment."""
    settings = load_settings()
    sentence = describe_source(settings)
    if sentence is not None and not as_json:
        say(sentence)
    return settings


def describe_source(settings: KeyAuthSettings) -> str | None:
    """Return a sentence about whose settings these are. None if the environment has set some of them."""
    from fastapi_keyauth.settings.urls import masked_url

    reference = app_reference.get()
    if reference is not None:
        where = masked_url(settings.database_url)
        return f"Settings of {reference}: database {where}, key prefix {settings.key_prefix}."
    if not settings.model_fields_set:
        return (
            "No KEYAUTH_* variable is set, so these are the default settings. If the application has settings in code,"
            " use keyauth --app module:attribute."
        )
    return None


def _settings_of(reference: str) -> KeyAuthSettings:
    from fastapi_keyauth.keyauth import KeyAuth

    found = _import(reference)
    if inspect.isfunction(found):
        found = _run(reference, found)
    if isinstance(found, KeyAuth):
        return found.settings
    installed = KeyAuth.installed_on(found)
    if not installed:
        raise SetupError(f"{reference} is neither a KeyAuth nor an application that one is installed on.")
    if len(installed) > 1:
        raise SetupError(f"{reference} has {len(installed)} KeyAuth objects. Name one of them instead.")
    return installed[0].settings


def _import(reference: str) -> Any:
    module_name, colon, path = reference.partition(":")
    if not (module_name and colon and path):
        raise typer.BadParameter("name it as module:attribute, such as main:app", param_hint="--app")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # as uvicorn does
    found = _run(reference, lambda: importlib.import_module(module_name))
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise SetupError(f"{module_name} has no attribute {path!r}.") from None
    return found


def _run(reference: str, load: Any) -> Any:
    try:
        return load()
    except Exception as error:  # the application's own code may raise anything
        raise SetupError(f"{reference} cannot be imported ({type(error).__name__}: {redact(str(error))}).") from error

"""The settings, and the startup checks of their values."""

from fastapi_keyauth.settings.settings import KeyAuthSettings

__all__ = ["KeyAuthSettings"]

"""API keys and sessions of this product: the one KeyAuth instance that every route uses."""

from fastapi_keyauth import DashboardOptions, KeyAuth, KeyAuthSettings
from fastapi_keyauth.settings.values import DatabaseUrl


class Settings(KeyAuthSettings):
    """Settings of the product. Variables ``KEYAUTH_*`` and a ``.env`` file override these defaults."""

    database_url: DatabaseUrl = "sqlite+aiosqlite:///./demo.db"


auth = KeyAuth(
    Settings(
        scopes={
            "completions:write": "Call the model",
            "notes:read": "Read the notes of the key's owner",
            "notes:write": "Add notes (also requires a session)",
        }
    ),
    dashboard=DashboardOptions(
        product="Parrot AI", home_path="/docs", log_in_path="/login", log_out_path="/logout", example_path="/v1/models"
    ),
)

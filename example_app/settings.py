"""Settings and plans of the product. Variables ``KEYAUTH_*`` and a ``.env`` file choose the database and Redis."""

from typing import Literal

from fastapi_keyauth import KeyAuthSettings, Limit

Plan = Literal["free", "pro"]
PLANS: dict[Plan, list[Limit]] = {
    "free": [
        Limit(name="day", limit=1000, per="day"),
        Limit(name="tokens", limit=10_000, per="month", unit="tokens"),
    ],
    "pro": [
        Limit(name="day", limit=100_000, per="day"),
        Limit(name="tokens", limit=5_000_000, per="month", unit="tokens"),
    ],
}
"""The limits of a team, for all its keys together."""


class Settings(KeyAuthSettings):
    """Settings of the plugin, with a database file of the example's own."""

    database_url: str = "sqlite+aiosqlite:///./demo.db"


settings = Settings(
    units=["tokens"],
    default_owner_limits=PLANS["free"],
    scopes={
        "completions:write": "Call the model",
        "notes:read": "Read the notes of the key's team",
        "notes:write": "Add notes (also requires a session)",
    },
)

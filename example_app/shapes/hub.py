"""A hub of models with Bearer keys: many keys, each with few permissions.

Start it with ``python -m example_app.shapes.hub``.
"""

from typing import Annotated, Any

from fastapi import FastAPI, Security

from example_app.parrot import MODELS, Answer, Chat
from example_app.shapes.demo import login_router, start
from fastapi_keyauth import DashboardOptions, KeyAuth, KeyAuthSettings, KeyPrincipal

auth = KeyAuth(
    KeyAuthSettings(
        key_prefix="hub",
        realm="hub",
        scopes={"models:read": "List models", "models:run": "Run a model"},
        default_hourly_limit=None,
        max_keys_per_owner=50,
    ),
    dashboard=DashboardOptions(product="Hub", log_in_path="/login"),
)
app = FastAPI(title="Hub")
auth.install(app)
app.include_router(login_router(auth, "ada"))
app.include_router(auth.keys_router, prefix="/api-keys")
app.include_router(auth.dashboard_router, prefix="/settings/api-keys")


@app.get("/v1/models", dependencies=[Security(auth.require_key, scopes=["models:read"])])
async def list_models() -> dict[str, Any]:
    """List the models."""
    return MODELS


@app.post("/v1/chat/completions")
async def complete(
    chat: Chat, key: Annotated[KeyPrincipal, Security(auth.require_key, scopes=["models:run"])]
) -> dict[str, Any]:
    """Run a model, at the expense of the key's owner."""
    return {**await Answer(chat).complete(), "billed_to": key.owner_id}


if __name__ == "__main__":
    start(app, auth, "ada", __file__)

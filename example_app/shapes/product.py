"""A product with keys and users: each key belongs to a project, and actions of a user also require a session.

Start it with ``python -m example_app.shapes.product``.
"""

from typing import Annotated

from fastapi import Depends, FastAPI

from example_app.shapes.demo import login_router, start
from fastapi_keyauth import DashboardOptions, KeyAuth, KeyAuthSettings, KeyPrincipal, SessionPrincipal

PROJECTS = {"ada": ["project-7"]}


async def find_projects(user: SessionPrincipal) -> dict[str, list[str]]:
    """Return the projects whose keys a user may manage."""
    return {project: ["keys:read", "keys:write"] for project in PROJECTS.get(user.user_id, [])}


auth = KeyAuth(
    KeyAuthSettings(
        key_prefix="shop",
        realm="product",
        accept_bearer_keys=False,
        default_hourly_limit=1000,
        allowed_origins=["https://app.example"],
        block_after_failures=10,
        failure_window_s=300,
        block_for_s=300,
    ),
    owners_of=find_projects,
    dashboard=DashboardOptions(product="Shop", log_in_path="/login"),
)
app = FastAPI(title="Shop")
auth.install(app)
app.include_router(login_router(auth, "ada"))
app.include_router(auth.keys_router, prefix="/api-keys")
app.include_router(auth.dashboard_router, prefix="/settings/api-keys")


@app.get("/catalogue")
async def read_catalogue(key: Annotated[KeyPrincipal, Depends(auth.require_key)]) -> list[str]:
    """Read what the shop sells. A key is enough."""
    return ["a chair", "a table"]


@app.post("/orders", status_code=201)
async def place_order(user: Annotated[SessionPrincipal, Depends(auth.require_key_and_session)]) -> dict[str, str]:
    """Place an order of a user."""
    return {"ordered_by": user.user_id, "project": user.key.owner_id if user.key else ""}


if __name__ == "__main__":
    start(app, auth, "ada", __file__)

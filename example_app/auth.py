"""API keys and sessions of this product: the one KeyAuth instance that every route uses."""

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from example_app.database import Member, engine
from example_app.settings import settings
from fastapi_keyauth import DashboardOptions, KeyAuth, SessionPrincipal

PERMISSIONS = {
    "viewer": ["keys:read"],
    "developer": ["keys:read", "keys:write"],
    "manager": ["keys:read", "keys:write"],
}


async def find_teams(user: SessionPrincipal) -> dict[str, list[str]]:
    """Return the teams whose keys a user may manage, as far as the user's role allows."""
    async with AsyncSession(engine) as database:
        members = await database.exec(select(Member).where(Member.user_id == user.user_id))
        return {member.team_id: PERMISSIONS[member.role] for member in members}


auth = KeyAuth(
    settings,
    owners_of=find_teams,
    dashboard=DashboardOptions(
        product="Parrot AI", home_path="/docs", log_in_path="/login", log_out_path="/logout", example_path="/v1/models"
    ),
)

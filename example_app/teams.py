"""Teams: the owners of API keys, with their members and their plan."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException
from pydantic import BaseModel
from sqlmodel import col, delete, select

from example_app.accounts import BROKEN, Email
from example_app.auth import auth
from example_app.database import Database, Member, Role, Team, User
from example_app.settings import PLANS, Plan
from fastapi_keyauth import SessionPrincipal

router = APIRouter(prefix="/teams", tags=["Teams"])

Person = Annotated[SessionPrincipal, Depends(auth.require_session)]
FOR_MANAGERS: dict[int | str, dict[str, Any]] = {
    403: {"description": "The user is not a manager of the team"},
    404: {"description": "The user has no such team, or there is no such account"},
    409: {"description": "The member is the founder of the team"},
}


class MemberOut(BaseModel):
    """A member of a team."""

    user_id: str
    email: str
    role: Role


class TeamOut(BaseModel):
    """A team. Its id is the ``owner_id`` of its keys."""

    id: str
    plan: Plan
    members: list[MemberOut]


class NewMember(BaseModel):
    """A member to add, or whose role to change."""

    email: Email
    role: Role


async def managed_team(team_id: str, user: Person, database: Database) -> Team:
    """Return a team that the user manages."""
    member = await database.get(Member, (team_id, user.user_id))
    if member is None:
        raise HTTPException(404, "You are not a member of this team.")
    if member.role != "manager":
        raise HTTPException(403, "Only a manager of this team may do this.")
    return await database.get_one(Team, team_id)


async def describe(team: Team, database: Database) -> TeamOut:
    """Return a team with its members."""
    rows = await database.exec(select(User, Member).where(Member.team_id == team.id, Member.user_id == User.id))
    members = [{"user_id": user.id, "email": user.email, "role": member.role} for user, member in rows]
    return TeamOut.model_validate({"id": team.id, "plan": team.plan, "members": members})


@router.get("")
async def list_teams(user: Person, database: Database) -> list[TeamOut]:
    """List the user's teams."""
    mine = select(Member.team_id).where(Member.user_id == user.user_id)
    teams = await database.exec(select(Team).where(col(Team.id).in_(mine)).order_by(Team.id))
    return [await describe(team, database) for team in teams.all()]


@router.put("/{team_id}/members", responses=BROKEN | FOR_MANAGERS)
async def add_member(new: NewMember, team: Annotated[Team, Depends(managed_team)], database: Database) -> TeamOut:
    """Add a member, or change a member's role. A real product asks the user first."""
    user = (await database.exec(select(User).where(User.email == new.email))).first()
    if user is None:
        raise HTTPException(404, "No account has this email address.")
    check_is_not_founder(user.id, team)
    await database.merge(Member(team_id=team.id, user_id=user.id, role=new.role))
    await database.commit()
    return await describe(team, database)


@router.delete("/{team_id}/members/{user_id}", status_code=204, responses=FOR_MANAGERS)
async def remove_member(user_id: str, team: Annotated[Team, Depends(managed_team)], database: Database) -> None:
    """Remove a member, and revoke the keys of the team that the member created."""
    check_is_not_founder(user_id, team)
    await database.exec(delete(Member).where(col(Member.team_id) == team.id, col(Member.user_id) == user_id))
    await database.commit()
    await auth.owners.revoke_keys(team.id, created_by=f"user:{user_id}", reason="the member has left the team")


@router.put("/{team_id}/plan", responses=BROKEN | FOR_MANAGERS)
async def change_plan(
    plan: Annotated[Plan, Body(embed=True)], team: Annotated[Team, Depends(managed_team)], database: Database
) -> TeamOut:
    """Change the plan of a team. A real product does this once it is paid for."""
    team.plan = plan
    database.add(team)
    await database.commit()
    await auth.owners.set(team.id, limits=PLANS[plan])
    return await describe(team, database)


def check_is_not_founder(user_id: str, team: Team) -> None:
    """Check that a change does not leave a team without a manager."""
    if user_id == team.id:
        raise HTTPException(409, "The founder of a team stays its manager.")

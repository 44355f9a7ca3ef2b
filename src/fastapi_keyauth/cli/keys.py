"""``keyauth keys``: create and read keys. Changes are in ``update.py`` and ``rotate_revoke.py``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastapi_keyauth.cli.import_keys import import_file
from fastapi_keyauth.cli.output import Json, day, moment, print_facts, print_json, print_line, say, status
from fastapi_keyauth.cli.parameters import KeyId, parse_duration, parse_moment, parse_object
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.records import describe, dump, print_created
from fastapi_keyauth.cli.rotate_revoke import revoke, rotate
from fastapi_keyauth.cli.runner import run_command
from fastapi_keyauth.cli.tables import print_table
from fastapi_keyauth.cli.update import disable, enable, update
from fastapi_keyauth.domain.keys import EventPage, Key, KeyPage, Status, UsageHour
from fastapi_keyauth.domain.pagination import MAX_PAGE, MAX_USAGE_HOURS

if TYPE_CHECKING:
    from fastapi_keyauth.keyauth import KeyAuth

app = typer.Typer(no_args_is_help=True, help="Create, read, update, rotate and revoke keys.")

_BAR_WIDTH = 30


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="Owner: the user, project or team the key belongs to.")],
    name: Annotated[str, typer.Option(help="Name: where the key is used, such as prod-api-server.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="Scope to grant (repeatable). Default: '*' (all except keys:* and admin).")
    ] = None,
    environment: Annotated[str | None, typer.Option(help="Second part of the token, such as live or test.")] = None,
    hourly_limit: Annotated[int | None, typer.Option(help="Requests per hour. Default: by the settings.")] = None,
    origin: Annotated[list[str] | None, typer.Option(help="Allowed browser origin (repeatable).")] = None,
    ip: Annotated[
        list[str] | None, typer.Option(help="Allowed address or network in CIDR form (repeatable). Default: any.")
    ] = None,
    expires_in: Annotated[
        timedelta | None, typer.Option(parser=parse_duration, metavar="30d", help="Lifetime: 12h, 30d, 1y.")
    ] = None,
    expires_at: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help="Expiry in UTC: 2027-01-31.")
    ] = None,
    metadata: Annotated[
        dict[str, Any] | None, typer.Option(parser=parse_object, metavar="JSON", help="Metadata: any JSON object.")
    ] = None,
    exempt: Annotated[
        bool, typer.Option("--exempt-from-policy", help="Exempt from the settings for the lifetime of keys.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create a key and print its token, only once and alone on standard output. The token is never stored."""
    if expires_in is not None:
        if expires_at is not None:
            raise typer.BadParameter("give --expires-in or --expires-at, not both")
        expires_at = datetime.now(UTC) + expires_in

    async def add(auth: KeyAuth) -> None:
        created = await auth.keys.create(
            owner_id=owner,
            name=name,
            scopes=scope or None,
            environment=environment,
            hourly_limit=hourly_limit,
            allowed_origins=origin or (),
            allowed_ips=ip or (),
            expires_at=expires_at,
            metadata=metadata,
            exempt_from_policy=exempt,
        )
        print_created(created, as_json=as_json)

    run_command(add, as_json=as_json)


@app.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Owner of the keys.")] = None,
    status_name: Annotated[Status | None, typer.Option("--status", help="Status of the keys.")] = None,
    q: Annotated[str | None, typer.Option("--q", help="Part of the name.")] = None,
    unused_for_days: Annotated[int | None, typer.Option(help="Days without use.")] = None,
    created_by: Annotated[
        str | None, typer.Option(help="Actor that created them: user:ada, key:<id>, cli:ada, code.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="Maximum number of keys.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="next_cursor of the previous page.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All keys, page after page.")] = False,
    as_json: Json = False,
) -> None:
    """List keys, newest first."""

    place = ""

    async def read(auth: KeyAuth) -> KeyPage:
        from fastapi_keyauth.settings.urls import masked_url

        nonlocal place
        place = masked_url(auth.settings.database_url)
        with tracking("keys") as tracker:
            keys: list[Key] = []
            after = cursor
            while True:
                page = await auth.keys.list(
                    owner_id=owner,
                    status=status_name,
                    q=q,
                    unused_for_days=unused_for_days,
                    cursor=after,
                    limit=MAX_PAGE if every else limit,
                    created_by=created_by,
                )
                keys += page.items
                tracker.advance(len(page))
                after = page.next_cursor
                if not every or after is None:
                    return KeyPage(keys, after)

    page = run_command(read, as_json=as_json)
    if as_json:
        print_json({"items": [describe(key) for key in page], "next_cursor": page.next_cursor})
        return
    if not page.items:
        # In the wrong folder, a relative path of SQLite names a new, empty database.
        say(f"No matching keys in {place}.")
        return
    columns = ("id", "name", "owner", "env", "status", "scopes", "created", "last used", "expires")
    print_table(columns, [_row(key) for key in page])
    if page.next_cursor is not None:
        say(f"There are more keys: --all, or --cursor {page.next_cursor}")


def _row(key: Key) -> list[Any]:
    times = (day(key.created_at), day(key.last_used_at), day(key.expires_at))
    return [key.id, key.name, key.owner_id, key.environment, status(key.status), " ".join(key.scopes), *times]


@app.command()
def show(
    id: KeyId,
    events: Annotated[int, typer.Option(min=0, max=MAX_PAGE, help="Maximum number of history lines; 0 for none.")] = 10,
    as_json: Json = False,
) -> None:
    """Show one key, its secrets (never a token) and its history."""

    async def read(auth: KeyAuth) -> tuple[Key, EventPage]:
        key = await auth.keys.get(id)
        return key, await auth.keys.events(id, limit=events) if events else EventPage([], None)

    key, history = run_command(read, as_json=as_json)
    if as_json:
        from fastapi_keyauth.http.routers.schemas import EventOut

        print_json({**describe(key), "events": [dump(EventOut, event) for event in history.items]})
        return
    limit = "none" if key.hourly_limit is None else f"{key.hourly_limit} requests"
    print_facts(
        [
            ("id", key.id),
            ("hint", key.hint),
            ("name", key.name),
            ("owner", key.owner_id),
            ("environment", key.environment),
            ("status", status(key.status)),
            ("scopes", " ".join(key.scopes)),
            ("hourly limit", limit),
            ("origins", " ".join(key.allowed_origins) or "any"),
            ("addresses", " ".join(key.allowed_ips) or "any"),
            ("created", moment(key.created_at)),
            ("created by", key.created_by or "-"),
            ("expires", moment(key.expires_at)),
            ("revoked", moment(key.revoked_at)),
            ("last used", moment(key.last_used_at)),
            *((f"metadata {name}", str(value)) for name, value in key.metadata.items()),
        ]
    )
    print_line("")
    rows = [(s.hint, moment(s.created_at), moment(s.expires_at), moment(s.last_used_at)) for s in key.secrets]
    if rows or key.status != "active":
        print_table(("secret", "created", "expires", "last used"), rows)
    else:
        say("No token of this key is valid any more; rotate the key to get a new one.")
    if history.items:
        print_line("")
        print_table(
            ("at", "event", "by", "from", "changed", "reason"),
            [
                (moment(e.at), e.event, e.actor, e.address or "-", " ".join(e.changes), e.reason or "")
                for e in history.items
            ],
        )


@app.command()
def usage(
    id: KeyId,
    hours: Annotated[int, typer.Option(min=1, max=MAX_USAGE_HOURS, help="Number of hours.")] = 24,
    as_json: Json = False,
) -> None:
    """Show the admitted and refused requests of a key in each hour."""

    async def read(auth: KeyAuth) -> list[UsageHour]:
        return await auth.keys.usage(id, hours)

    found = run_command(read, as_json=as_json)
    if as_json:
        from fastapi_keyauth.http.routers.schemas import UsageHourOut

        print_json({"items": [dump(UsageHourOut, hour) for hour in found]})
        return
    most = max(1, *(hour.admitted for hour in found))
    print_table(
        ("hour", "admitted", "refused", ""),
        [
            (
                hour.hour.strftime("%Y-%m-%d %H:00Z"),
                str(hour.admitted),
                str(hour.refused),
                "█" * round(_BAR_WIDTH * hour.admitted / most),
            )
            for hour in found
        ],
        right=("admitted", "refused"),
    )


# Registered last, so that the help lists them after the commands above.
app.command()(update)
app.command()(disable)
app.command()(enable)
app.command()(rotate)
app.command()(revoke)
app.command("import")(import_file)

"""``keyauth keys``: make keys and look at them. Changing one is in ``update.py`` and ``rotate_revoke.py``."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from fastapi_keyauth.cli.import_keys import import_file
from fastapi_keyauth.cli.output import Json, day, moment, print_facts, print_json, print_line, print_table, say, status
from fastapi_keyauth.cli.parameters import KeyId, parse_duration, parse_moment, parse_object
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.rotate_revoke import describe, dump, print_created, revoke, rotate
from fastapi_keyauth.cli.runner import run_command
from fastapi_keyauth.cli.update import disable, enable, update
from fastapi_keyauth.domain.keys import EventPage, Key, KeyPage, Status, UsageHour
from fastapi_keyauth.http.routers.schemas import EventOut, UsageHourOut
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.keys.queries import MAX_PAGE, MAX_USAGE_HOURS
from fastapi_keyauth.settings.urls import masked_url

app = typer.Typer(no_args_is_help=True, help="Make keys, look at them, change, rotate and revoke them.")

_BAR_WIDTH = 30


@app.command()
def create(
    owner: Annotated[str, typer.Option(help="The user or project it belongs to.")],
    name: Annotated[str, typer.Option(help="Where it is used: prod-api-server, local-dev-alice.")],
    scope: Annotated[
        list[str] | None, typer.Option(help="What it may do; again for more. Left out: '*', all but keys:* and admin.")
    ] = None,
    environment: Annotated[str | None, typer.Option(help="Second part of the token, such as live or test.")] = None,
    hourly_limit: Annotated[int | None, typer.Option(help="Requests per hour. Left out: the default.")] = None,
    origin: Annotated[list[str] | None, typer.Option(help="A browser origin it is bound to; again for more.")] = None,
    ip: Annotated[
        list[str] | None, typer.Option(help="An address or network (CIDR) it is bound to; again for more.")
    ] = None,
    expires_in: Annotated[
        timedelta | None, typer.Option(parser=parse_duration, metavar="30d", help="How long it lives: 12h, 30d, 1y.")
    ] = None,
    expires_at: Annotated[
        datetime | None, typer.Option(parser=parse_moment, metavar="TIME", help="Until when: 2027-01-31, in UTC.")
    ] = None,
    metadata: Annotated[
        dict[str, Any] | None, typer.Option(parser=parse_object, metavar="JSON", help="Your own notes, a JSON object.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key, and print its token: once, alone on standard output. It is stored nowhere."""
    if expires_in is not None:
        if expires_at is not None:
            raise typer.BadParameter("give --expires-in or --expires-at, not both")
        expires_at = datetime.now(UTC) + expires_in

    async def make(auth: KeyAuth) -> None:
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
        )
        print_created(created, as_json=as_json)

    run_command(make, as_json=as_json)


@app.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    status_name: Annotated[Status | None, typer.Option("--status", help="Only those with this status.")] = None,
    q: Annotated[str | None, typer.Option("--q", help="Only those whose name contains this.")] = None,
    unused_for_days: Annotated[int | None, typer.Option(help="Only those not used for so many days.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after a page: its next_cursor.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All of them, page after page.")] = False,
    as_json: Json = False,
) -> None:
    """List keys, newest first."""

    place = ""

    async def read(auth: KeyAuth) -> KeyPage:
        nonlocal place
        place = masked_url(auth.settings.database_url)
        with tracking("keys") as tracker:
            keys: list[Key] = []
            after = cursor
            while True:
                page = await auth.keys.list(owner, status_name, q, unused_for_days, after, MAX_PAGE if every else limit)
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
        # A relative path of SQLite, in the wrong folder, is a database that was empty until now.
        say(f"There are no such keys in {place}.")
        return
    columns = ("id", "name", "owner", "env", "status", "scopes", "created", "last used", "expires")
    print_table(columns, [_row(key) for key in page])
    if page.next_cursor is not None:
        say(f"There are more: --all, or --cursor {page.next_cursor}")


def _row(key: Key) -> list[Any]:
    times = (day(key.created_at), day(key.last_used_at), day(key.expires_at))
    return [key.id, key.name, key.owner_id, key.environment, status(key.status), " ".join(key.scopes), *times]


@app.command()
def show(
    id: KeyId,
    events: Annotated[int, typer.Option(min=0, max=MAX_PAGE, help="How much of its history; 0: nothing.")] = 10,
    as_json: Json = False,
) -> None:
    """Show one key, its secrets (never a token) and what was done to it."""

    async def read(auth: KeyAuth) -> tuple[Key, EventPage]:
        key = await auth.keys.get(id)
        return key, await auth.keys.events(id, limit=events) if events else EventPage([], None)

    key, history = run_command(read, as_json=as_json)
    if as_json:
        print_json({**describe(key), "events": [dump(EventOut, event) for event in history.items]})
        return
    limit = "none" if key.hourly_limit is None else f"{key.hourly_limit} an hour"
    print_facts(
        [
            ("id", key.id),
            ("hint", key.hint),
            ("name", key.name),
            ("owner", key.owner_id),
            ("environment", key.environment),
            ("status", status(key.status)),
            ("scopes", " ".join(key.scopes)),
            ("cap", limit),
            ("origins", " ".join(key.allowed_origins) or "any"),
            ("addresses", " ".join(key.allowed_ips) or "any"),
            ("created", moment(key.created_at)),
            ("expires", moment(key.expires_at)),
            ("revoked", moment(key.revoked_at)),
            ("last used", moment(key.last_used_at)),
            *((f"metadata {name}", str(value)) for name, value in key.metadata.items()),
        ]
    )
    print_line("")
    rows = [(s.hint, moment(s.created_at), moment(s.expires_at), moment(s.last_used_at)) for s in key.secrets]
    print_table(("secret", "made", "ends", "last used"), rows)
    if history.items:
        print_line("")
        print_table(
            ("at", "event", "by", "from", "changed"),
            [(moment(e.at), e.event, e.actor, e.address or "-", " ".join(e.changes)) for e in history.items],
        )


@app.command()
def usage(
    id: KeyId,
    hours: Annotated[int, typer.Option(min=1, max=MAX_USAGE_HOURS, help="How many hours back.")] = 24,
    as_json: Json = False,
) -> None:
    """Show how many requests a key made in each hour, and how many were refused."""

    async def read(auth: KeyAuth) -> list[UsageHour]:
        return await auth.keys.usage(id, hours)

    found = run_command(read, as_json=as_json)
    if as_json:
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


# Here and not above, so that the help lists them after what comes first.
app.command()(update)
app.command()(disable)
app.command()(enable)
app.command()(rotate)
app.command()(revoke)
app.command("import")(import_file)

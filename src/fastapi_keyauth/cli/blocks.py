"""``keyauth blocks``: who is blocked for too many failed attempts, and lifting it."""

from typing import Annotated

import typer

from fastapi_keyauth.auth.blocked_addresses import Block
from fastapi_keyauth.cli.output import Json, print_json, print_table, say
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.runner import Exit, fail, run_command
from fastapi_keyauth.keyauth import KeyAuth
from fastapi_keyauth.limiter.redis.base import KNOWN_BLOCK_S

app = typer.Typer(no_args_is_help=True, help="See and lift the blocks of addresses (needs Redis).")


@app.command("list")
def list_blocks(as_json: Json = False) -> None:
    """List the addresses that are blocked."""

    async def read(auth: KeyAuth) -> list[Block]:
        _want_redis(auth, as_json=as_json)
        with tracking("looking through Redis"):
            return await auth.blocks.list()

    blocks = run_command(read, as_json=as_json)
    if as_json:
        print_json({"items": [{"address": block.address, "ends_in_s": block.ends_in_s} for block in blocks]})
    elif blocks:
        print_table(("address", "ends in"), [(b.address, f"{b.ends_in_s} s") for b in blocks], right=("ends in",))
    else:
        say("Nobody is blocked.")


@app.command()
def clear(
    addresses: Annotated[list[str] | None, typer.Argument(metavar="ADDRESS...", help="Whom to let in again.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Everybody.")] = False,
    as_json: Json = False,
) -> None:
    """Lift blocks, and forget failed attempts. Workers that remember a block follow within 5 seconds."""
    if bool(addresses) is every:
        raise typer.BadParameter("give addresses, or --all")

    async def lift(auth: KeyAuth) -> list[str]:
        _want_redis(auth, as_json=as_json)
        wanted = addresses or [block.address for block in await auth.blocks.list()]
        lifted = []
        with tracking("lifting blocks", len(wanted)) as tracker:
            for address in wanted:
                if await auth.blocks.clear(address):
                    lifted.append(address)
                tracker.advance()
        return lifted

    lifted = run_command(lift, as_json=as_json)
    if as_json:
        print_json({"cleared": lifted})
    elif lifted:
        say(f"No longer blocked, everywhere within {KNOWN_BLOCK_S:.0f} seconds: {', '.join(lifted)}")
    if not lifted and not every:
        fail(Exit.REFUSED, "not_blocked", "No such address is blocked. Failed attempts are forgotten.", as_json=as_json)
    if not lifted and not as_json:
        say("Nobody is blocked.")


def _want_redis(auth: KeyAuth, *, as_json: bool) -> None:
    if auth.settings.redis_url is None:
        fail(
            Exit.REFUSED,
            "no_redis",
            "Without redis_url each worker keeps its blocks to itself, so nobody else can see or lift them. They end by"
            f" themselves within {auth.settings.block_for_s} seconds, and with a restart.",
            as_json=as_json,
        )

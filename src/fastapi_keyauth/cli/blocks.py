"""``keyauth blocks``: addresses that are blocked for too many failed attempts, and lifting their blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fastapi_keyauth.cli.output import Json, print_json, say
from fastapi_keyauth.cli.progress import tracking
from fastapi_keyauth.cli.runner import Exit, fail, run_command
from fastapi_keyauth.cli.tables import print_table

if TYPE_CHECKING:
    from fastapi_keyauth.auth.blocked_addresses import Block
    from fastapi_keyauth.keyauth import KeyAuth

app = typer.Typer(no_args_is_help=True, help="List and lift blocks of addresses (requires Redis).")


@app.command("list")
def list_blocks(as_json: Json = False) -> None:
    """List the blocked addresses."""

    async def read(auth: KeyAuth) -> list[Block]:
        _require_redis(auth, as_json=as_json)
        with tracking("reading from Redis"):
            return await auth.blocks.list()

    blocks = run_command(read, as_json=as_json)
    if as_json:
        print_json({"items": [{"address": block.address, "ends_in_s": block.ends_in_s} for block in blocks]})
    elif blocks:
        print_table(("address", "ends in"), [(b.address, f"{b.ends_in_s} s") for b in blocks], right=("ends in",))
    else:
        say("No address is blocked.")


@app.command()
def clear(
    addresses: Annotated[list[str] | None, typer.Argument(metavar="ADDRESS...", help="Addresses to unblock.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All blocked addresses.")] = False,
    as_json: Json = False,
) -> None:
    """Lift blocks and reset failed attempts. Workers that cached a block follow within 5 seconds."""
    from fastapi_keyauth.limiter.redis.known_blocks import KNOWN_BLOCK_S

    if bool(addresses) is every:
        raise typer.BadParameter("give addresses or --all")

    async def lift(auth: KeyAuth) -> list[str]:
        _require_redis(auth, as_json=as_json)
        requested = addresses or [block.address for block in await auth.blocks.list()]
        lifted = []
        with tracking("lifting blocks", len(requested)) as tracker:
            for address in requested:
                if await auth.blocks.clear(address):
                    lifted.append(address)
                tracker.advance()
        return lifted

    lifted = run_command(lift, as_json=as_json)
    if as_json:
        print_json({"cleared": lifted})
    elif lifted:
        say(f"No longer blocked on all workers within {KNOWN_BLOCK_S:.0f} seconds: {', '.join(lifted)}")
    if not lifted and not every:
        sentence = "None of these addresses is blocked. Their failed attempts are reset."
        fail(Exit.REFUSED, "not_blocked", sentence, as_json=as_json)
    if not lifted and not as_json:
        say("No address is blocked.")


def _require_redis(auth: KeyAuth, *, as_json: bool) -> None:
    if auth.settings.redis_url is None:
        fail(
            Exit.REFUSED,
            "no_redis",
            "Without redis_url each worker keeps its blocks in its own memory, so no other process can list or lift"
            f" them. They end within {auth.settings.block_for_s} seconds, and with a restart.",
            as_json=as_json,
        )

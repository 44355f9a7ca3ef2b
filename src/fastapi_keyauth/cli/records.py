"""Records in the form in which the management routes return them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fastapi_keyauth.cli.output import moment, print_json, print_line, say

if TYPE_CHECKING:
    from pydantic import BaseModel

    from fastapi_keyauth.domain.keys import CreatedKey, Key


def dump(model: type[BaseModel], record: Any) -> dict[str, Any]:
    """Convert a record to JSON values, as the management routes do."""
    return model.model_validate(asdict(record)).model_dump(mode="json")


def describe(key: Key) -> dict[str, Any]:
    """Convert a key to JSON values. They never hold its token."""
    from fastapi_keyauth.http.routers.schemas import KeyOut

    return dump(KeyOut, key)


def print_created(created: CreatedKey, *, as_json: bool) -> None:
    """Print the token on stdout, where a program can read it, and facts about it on stderr."""
    from fastapi_keyauth.http.routers.schemas import CreatedKeyOut

    if as_json:
        print_json(CreatedKeyOut.of(created).model_dump(mode="json"))
        return
    key = created.key
    print_line(created.token)
    say(f"This is the token of key {key.id} ({key.name}, {key.owner_id}). It is shown only once: store it now.")
    if key.expires_at is not None:
        say(f"The key expires at {moment(key.expires_at)}.")

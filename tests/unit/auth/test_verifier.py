"""What a verifier finds in the text of a token, without a database."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from fastapi_keyauth.auth.verifier import Location, Verifier
from fastapi_keyauth.domain.tokens import TokenParser, format_token, new_key_id, new_secret


def test_location_of_a_token_is_written_as_its_key_without_its_secret() -> None:
    key_id, secret = new_key_id(), new_secret()
    text = format_token("ka", "live", key_id, secret)
    location = Location(text, b"digest", TokenParser("ka").parse(text))
    assert location.key_id == key_id
    assert repr(location) == f"Location(key_id='{key_id}')"
    assert f"{location}" == repr(location)


def test_location_of_an_imported_token_names_no_key_and_does_not_show_the_token() -> None:
    location = Location("acme-token", b"digest", None)
    assert location.key_id is None
    assert repr(location) == "Location(key_id=None)"


class Imported:
    """Tokens of imported keys: it records what is looked up."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def find_key_id(self, text: str, _digest: bytes) -> str:
        """Look a token up."""
        self.seen.append(text)
        return "imported"


async def test_only_tokens_of_imported_keys_are_looked_up_to_find_their_key() -> None:
    imported: Any = Imported()
    cache: Any = SimpleNamespace(find=None, find_negative=None)
    unused: Any = None
    key_id = new_key_id()
    text = format_token("ka", "live", key_id, new_secret())
    own = Location(text, b"digest", TokenParser("ka").parse(text))
    for accepted in (None, imported):
        verifier = Verifier(TokenParser("ka"), unused, unused, cache, unused, imported=accepted)
        assert await verifier.find_key_id(own) == key_id
    assert imported.seen == []
    assert await verifier.find_key_id(Location("acme-token", b"digest", None)) == "imported"
    assert imported.seen == ["acme-token"]

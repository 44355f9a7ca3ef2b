"""What a verifier finds in the text of a token, without I/O."""

from __future__ import annotations

from fastapi_keyauth.auth.verifier import Location
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

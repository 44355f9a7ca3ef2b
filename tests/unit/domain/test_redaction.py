"""No secret remains in a text, however the token was damaged."""

import base64
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fastapi_keyauth.domain.redaction import redact
from fastapi_keyauth.domain.tokens import ALPHABET, format_token, new_key_id, new_secret, new_session_token
from tests.helpers.fuzzing import fuzzed

RUN = 20
"""Characters of a secret in a row that must not be left: the others are then too many to guess."""


_ESCAPED = re.compile(r"(?:%(?:25)*|\\+(?:x|u00))([0-9A-Fa-f]{2})")


def shows_secret(text: str, token: str, run: int = RUN) -> bool:
    """Return whether a text contains a part of the secret, also after its escapes are decoded."""
    secret = token.rpartition("_")[2]
    decoded = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    parts = [secret[start : start + run] for start in range(len(secret) - run + 1)]
    return any(part in shown for part in parts for shown in (text, decoded))


def damage(token: str) -> dict[str, str]:
    prefix, environment, key_id, secret = token.split("_")
    return {
        "whole": token,
        "cut at the front": token[3:],
        "id and secret": f"{key_id}_{secret}",
        "the secret alone": secret,
        "one character of the id missing": f"{prefix}_{environment}_{key_id[1:]}_{secret}",
        "one character of the id too many": f"{prefix}_{environment}_{key_id}x_{secret}",
        "capital in the environment": f"{prefix}_{environment.title()}_{key_id}_{secret}",
        "first underscore lost": f"{prefix}{environment}_{key_id}_{secret}",
        "second underscore lost": f"{prefix}_{environment}{key_id}_{secret}",
        "third underscore lost": f"{prefix}_{environment}_{key_id}{secret}",
        "dashes": f"{prefix}-{environment}-{key_id}-{secret}",
        "a space before the secret": f"{prefix}_{environment}_{key_id}_ {secret}",
        "a line break in the secret": f"{prefix}_{environment}_{key_id}_{secret[:24]}\n{secret[24:]}",
        "percent-encoded underscores": f"{prefix}%5F{environment}%5F{key_id}%5F{secret}",
        "percent-encoded": "".join(f"%{ord(character):02X}" for character in token),
        "percent-encoded twice": "".join(f"%25{ord(character):02x}" for character in token),
        "percent-encoded three times": "".join(f"%2525{ord(character):02X}" for character in token),
        "escaped as in JSON": "".join(f"\\u{ord(character):04x}" for character in token),
        "escaped as in Python": "".join(f"\\x{ord(character):02x}" for character in token),
        "escaped and quoted again": "".join(f"\\\\u{ord(character):04X}" for character in token),
        "escaped in part": "".join(f"\\x{ord(c):02x}" if c.isdigit() else c for c in token),
        "other text before it": "x" * 40 + token,
        "twice": token + token,
    }


@pytest.mark.parametrize("slip", damage("a_b_c_d"))
def test_a_damaged_token_leaves_no_secret(slip: str) -> None:
    token = format_token("ka", "live", new_key_id(), new_secret())
    assert not shows_secret(redact(f"GET /items/{damage(token)[slip]}/x"), token)


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode, base64.b16encode, base64.b32encode])
def test_an_encoded_token_leaves_no_secret(encode: object) -> None:
    token = format_token("ka", "live", new_key_id(), new_secret())
    encoded = encode(token.encode()).decode()  # type: ignore[operator]  # one of four functions alike
    left = redact(encoded)
    assert not any(encoded[start : start + RUN] in left for start in range(len(encoded) - RUN))


def test_a_whole_token_is_replaced_by_its_id() -> None:
    key_id = new_key_id()
    assert redact(f"({format_token('ka', 'live', key_id, new_secret())})") == f"(<token {key_id}>)"
    assert redact(f"a {new_session_token()} b") == "a <token of a session> b"


@pytest.mark.parametrize(
    "text",
    [
        "/api-keys/0123456789Ab/usage",
        "/items/3f2b8c1e-7d4a-4b9e-9c55-0a1b2c3d4e5f",
        "/tasks_overview",
        "/acknowledgementsandnotifications",
        "ResponseValidationError in HTTPExceptionHandlerFactory",
        "2026-11-29T03:14:47Z 127.0.0.1 GET",
        "ka_live_0123456789Ab_\u2026wxyz",
        "https://github.com/acme/shop/blob/main/settings.py",
    ],
)
def test_ordinary_text_is_kept(text: str) -> None:
    assert redact(text) == text


def test_the_id_of_a_commit_can_be_kept() -> None:
    url = f"https://github.com/acme/shop/blob/{'0123456789abcdef' * 2}01234567/settings.py"
    assert redact(url, keep_digests=True) == url
    assert "<redacted>" in redact(url)
    token = format_token("ka", "live", new_key_id(), new_secret())
    assert not shows_secret(redact(f"{url}?{token[3:]}", keep_digests=True), token)


texts = st.text(max_size=30)
tokens = st.builds(
    format_token,
    st.just("ka"),
    st.just("live"),
    st.text(ALPHABET, min_size=12, max_size=12),
    st.text(ALPHABET, min_size=43, max_size=43),
)


@fuzzed(300)
@given(
    token=tokens, before=texts, after=texts, cut=st.integers(0, 40), slip=st.integers(0, 20), typo=st.text(max_size=2)
)
def test_no_slip_in_the_public_part_leaves_the_secret(
    token: str, before: str, after: str, cut: int, slip: int, typo: str
) -> None:
    assume(any(character.isdigit() for character in token[-29:]))  # words are kept; no generator makes such a secret
    damaged = (token[:slip] + typo + token[slip + 1 :])[cut:]
    assume(shows_secret(damaged, token))
    assert not shows_secret(redact(before + damaged + after), token)


@fuzzed(200)
@given(text=st.text(max_size=300))
def test_redacting_again_changes_nothing(text: str) -> None:
    assert redact(redact(text)) == redact(text)

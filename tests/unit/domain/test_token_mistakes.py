"""The mistakes that are recognized in a value that is not a token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_keyauth.domain.token_mistakes import find_mistake, find_placeholder
from fastapi_keyauth.domain.tokens import ALPHABET, checksum, format_token
from tests.helpers.fuzzing import fuzzed
from tests.helpers.tokens import forge

TOKEN = forge()
SECRET = TOKEN.rpartition("_")[2]
SESSION_TOKEN = f"ks_{SECRET}{checksum(f'ks_{SECRET}')}"
"""Always the same: every process that shares the tests must collect them under the same names."""

PLACEHOLDERS = [
    *("undefined", "null", "None", "nil", "NULL", "Undefined", "NaN", "[object Object]", "(null)", "<nil>"),
    *("YOUR_API_KEY", "your-api-key", "your_api_key_here", "YourApiKey", "my-secret-key", "<your api key>", "API_KEY"),
    *("insert your key here", "Paste-Your-Token-Here", "ACME_API_KEY", "ka_your_key", "changeme", "placeholder"),
    *("$NAME", "${NAME}", "{{NAME}}", "{{ name }}", "$API_KEY", "${{ secrets.API_KEY }}", "%API_KEY%", "$(KEY)"),
    *("<...>", "<API_KEY>", "[API_KEY]", "{api_key}", "$env:API_KEY", "process.env.API_KEY", "@KEY@", "__KEY__"),
    *(
        "xxxxxxxx",
        "XXX",
        "ka_live_xxxxxxxxxxxx",
        "ka_...",
        "ka_live_\u2026",
        "***",
        "ka_live_<id>_<secret>",
        "ka_<key>",
    ),
    *("Bearer", "Bearer undefined", "bearer YOUR_API_KEY", "'undefined'", '""', '"null"', "Bearer ${TOKEN}"),
]

NOT_PLACEHOLDERS = [
    *("nonsense", "wrong", "x", "ka_", "ka_nonsense", "ka_live_nonsense", "bad-key", "0", "test", "no-session"),
    *(TOKEN, f"<{TOKEN}>", f'"{TOKEN}"', f"Bearer {TOKEN}", "${" + TOKEN + "}", SECRET, SESSION_TOKEN),
    "ka_live_0123456789Ab_\u2026wxyz",
]


@pytest.mark.parametrize("value", PLACEHOLDERS)
@pytest.mark.parametrize("change", [str, str.upper, str.lower])
def test_a_placeholder_is_recognized_in_any_case(value: str, change: type[str]) -> None:
    assert find_placeholder(change(value).encode("utf-8").decode("latin-1"))


@pytest.mark.parametrize("value", NOT_PLACEHOLDERS)
def test_a_guess_or_a_token_is_not_a_placeholder(value: str) -> None:
    assert find_placeholder(value.encode("utf-8").decode("latin-1")) is None


@pytest.mark.parametrize("value", ["undefined", "YOUR_API_KEY", "${NAME}"])
def test_the_sentence_says_which_placeholder_was_sent(value: str) -> None:
    assert find_placeholder(value) == f"the placeholder '{value}' was sent"


@pytest.mark.parametrize(
    ("value", "mistake"),
    [
        (f'"{TOKEN}"', "it is wrapped in quotes"),
        (f"\u201c{TOKEN}\u201d", "it is wrapped in quotes"),
        (f"Bearer {TOKEN}", "it starts with the word 'Bearer', which belongs only in the Authorization header"),
        (f"Token {TOKEN}", "it starts with the word 'Token', which belongs only in the Authorization header"),
        (f"<{TOKEN}>", "it is wrapped in brackets"),
        (SESSION_TOKEN, "it is a session token, which belongs in the Authorization header after 'Bearer'"),
        (TOKEN + TOKEN, "it contains more than one key, or one key twice"),
        (f"{TOKEN} {TOKEN}", "it contains more than one key, or one key twice"),
        (SECRET + SECRET, "it contains more than one key, or one key twice"),
        ("ka_live_0123456789Ab_\u2026wxyz", "it is a shortened hint and not the key itself, which is shown only once"),
        ("ka_live_0123456789Ab_...wxyz", "it is a shortened hint and not the key itself, which is shown only once"),
        ("ka_live_****wxyz", "it is a shortened hint and not the key itself, which is shown only once"),
        (f"API_KEY={TOKEN}", "there is other text before 'ka_'"),
        (f"api-key: {TOKEN}", "there is other text before 'ka_'"),
        ("0123456789Ab", "it is only the public part of a key, and the secret part is missing"),
        ("ka_live_0123456789Ab", "it is only the public part of a key, and the secret part is missing"),
        (f"{TOKEN} x", "there is white space inside it"),
        (TOKEN.replace("_", "%5F"), "it is percent-encoded"),
        (TOKEN[:-1] + "\u00e9", "it contains characters that no key has"),
        (TOKEN.upper(), "its upper and lower case was changed"),
        (TOKEN[3:], "its beginning is missing"),
        (TOKEN[20:], "its beginning is missing"),
        ("sk_live_abc", "it does not start with 'ka_'"),
        (TOKEN[:-1], "its end is missing, so it was cut off"),
        (TOKEN[:40], "its end is missing, so it was cut off"),
        (TOKEN + "x", "it has additional characters at its end"),
        ("ka_nonsense", "it has the wrong form, so it was mistyped or cut off"),
        ("", "it is empty"),
        ("x" * 600, "it is too long"),
    ],
)
def test_a_mistake_is_named(value: str, mistake: str) -> None:
    assert find_mistake(value.encode("utf-8").decode("latin-1"), "ka", "ks") == mistake


ids = st.text(ALPHABET, min_size=12, max_size=12)
secrets = st.text(ALPHABET, min_size=43, max_size=43)
tokens = st.builds(format_token, st.just("ka"), st.just("live"), ids, secrets)


@fuzzed(300)
@given(token=tokens, before=st.text(max_size=12), after=st.text(max_size=12), cut=st.integers(0, 40))
def test_no_sentence_quotes_a_secret(token: str, before: str, after: str, cut: int) -> None:
    value = before + token[cut:] + after
    said = f"{find_placeholder(value)} {find_mistake(value, 'ka', 'ks')}"
    secret = token.rpartition("_")[2]
    assert not any(secret[start : start + 8] in said for start in range(len(secret) - 8))


@fuzzed(300)
@given(value=st.text(max_size=200))
def test_any_text_gets_a_sentence(value: str) -> None:
    mistake = find_mistake(value, "ka", "ks")
    assert mistake.startswith(("it ", "there ", "its "))
    find_placeholder(value)

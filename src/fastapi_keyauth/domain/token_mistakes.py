"""The likeliest mistake in a value that is not a token, in words.

Pure functions in linear time that quote no secret.
"""

import re

MAX_EXAMINED = 512
"""Length up to which a value is examined, in characters."""
MAX_PLACEHOLDER = 80

_QUOTES = "\"'`\u2018\u2019\u201c\u201d"
_SCHEMES = {"bearer": "Bearer", "token": "Token", "apikey": "ApiKey", "api-key": "api-key", "basic": "Basic"}
_MASK = re.compile("\u2026|\u2022{2}|\\.{3}|\\*{3}")
_QUOTABLE = re.compile(r"[ -~]{1,40}")
_LONG_RUN = re.compile(r"[0-9A-Za-z]{20}")
"""More than a name has, so it may be a secret."""

_UNSET = re.compile(r"(?i)undefined|null|none|nil|nan|unset|\(null\)|<nil>|\[object object\]|bearer")
# Atomic groups, so that a long row of words is tried once.
_WORDS = re.compile(
    r"(?i)(?>(?:your|my|the|insert|put|paste|enter|replace|add|use|example|sample|dummy|fake)[-_ .]*)+"
    r"(?>(?:own|with|new|secret|access|auth|api|keys?|tokens?|value|here|goes|live|test|prod)[-_ .]*)+"
)
_NAME = re.compile(
    r"(?i)(?:[a-z0-9]{1,20}_){0,4}(?:api[-_]?key|api[-_]?token)(?:[-_ ]?here)?|(?:key|token|secret)[-_ ]here"
    r"|change[-_ ]?me|placeholder|todo|tbd|fixme"
)
_FILLER = re.compile(r"(?i)(?>(?:x{3,}|\*{3,}|\.{3,}|\u2026|\u2022+)[-_ ]?)+")
_VARIABLE = re.compile(
    r"(?i)\$(?:env:)?\w{1,64}|%\w{1,64}%|@\w{1,64}@|__\w{1,64}__|(?:process\.env|import\.meta\.env|secrets)\.\w{1,64}"
)
_BRACKETED = re.compile(
    r"(?:[$#%]?(?>\{\{[^{}]*\}\}|\{[^{}]*\}|\([^()]*\)|<[^<>]*>|\[[^\[\]]*\])[-_. ]?)+"
)  # ${NAME}, ${{ secrets.NAME }}, <key>, <id>_<secret>
_PUBLIC_PART = re.compile(r"(?:[a-z0-9]{1,16}_)?[0-9A-Za-z]{12}_?")
_CUT_AT_FRONT = re.compile(r"[0-9A-Za-z_]{0,40}[0-9A-Za-z]{49}")
_SHAPES = (_UNSET, _WORDS, _NAME, _FILLER, _VARIABLE, _BRACKETED)


def decode(value: str) -> str:
    """Return the text that a header's bytes mean, which HTTP libraries read as Latin-1."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def find_placeholder(value: str) -> str | None:
    """Return what to say about a placeholder that was sent instead of a token. None if the value is not one.

    A client sends a placeholder if its variable is unset or was never filled in: ``undefined``, ``YOUR_API_KEY``,
    ``${API_KEY}``, ``<key>``, ``ka_live_xxxx``.
    """
    if len(value) > MAX_PLACEHOLDER or _LONG_RUN.search(value):
        return None
    text = decode(value)
    bare = text.strip(_QUOTES + " ")
    if not bare:
        return "a pair of quotes without a key was sent"
    scheme, _, rest = bare.partition(" ")
    if scheme.lower() in _SCHEMES and rest.strip():
        bare = rest.strip(_QUOTES + " ")
    parts = bare.split("_", 2)
    candidates = (bare, "_".join(parts[1:]), parts[-1])  # as they are, or after the prefix and the environment
    if not any(shape.fullmatch(candidate) for shape in _SHAPES for candidate in candidates):
        return None
    return f"the placeholder '{text}' was sent" if _QUOTABLE.fullmatch(text) else "a placeholder was sent"


def find_mistake(value: str, prefix: str, session_prefix: str) -> str:
    """Return what is wrong with a value that is not a token, as half a sentence without the value.

    Args:
        value: What was sent.
        prefix: Prefix of API tokens.
        session_prefix: Prefix of session tokens.
    """
    if not value:
        return "it is empty"
    if len(value) > MAX_EXAMINED:
        return "it is too long"
    text = decode(value)
    if text.startswith(f"{session_prefix}_"):
        return "it is a session token, which belongs in the Authorization header after 'Bearer'"
    return _find_wrapping(text) or _find_other_copy(text, prefix) or _find_damage(text, prefix)


def _find_wrapping(text: str) -> str | None:
    """Return what was sent around the token, if anything."""
    if text[:1] in _QUOTES or text[-1:] in _QUOTES:
        return "it is wrapped in quotes"
    scheme = _SCHEMES.get(text.partition(" ")[0].lower())
    if scheme is not None:
        return f"it starts with the word '{scheme}', which belongs only in the Authorization header"
    if text[0] in "<[{(" and text[-1] in ">]})":
        return "it is wrapped in brackets"
    return None


def _find_other_copy(text: str, prefix: str) -> str | None:
    """Return what was copied in place of one token, if it is recognized."""
    start = f"{prefix}_"
    if _MASK.search(text):
        return "it is a shortened hint and not the key itself, which is shown only once"
    if text.count(start) > 1 or (len(text) > 60 and text[: len(text) // 2] == text[-(len(text) // 2) :]):
        return "it contains more than one key, or one key twice"
    if start in text[1:] and not text.startswith(start):
        return f"there is other text before '{start}'"
    if _PUBLIC_PART.fullmatch(text.removeprefix(start)):
        return "it is only the public part of a key, and the secret part is missing"
    return None


def _find_damage(text: str, prefix: str) -> str:
    """Return what happened to one token on its way."""
    start = f"{prefix}_"
    if any(character.isspace() for character in text):
        return "there is white space inside it"
    if "%" in text:
        return "it is percent-encoded"
    if not text.isascii() or not text.isprintable():
        return "it contains characters that no key has"
    if text.lower().startswith(start) and not text.startswith(start):
        return "its upper and lower case was changed"
    if not text.startswith(start):
        if _CUT_AT_FRONT.fullmatch(text):
            return "its beginning is missing"
        return f"it does not start with '{start}'"
    last = text.rpartition("_")[2]
    if text.count("_") == 3 and last.isalnum() and len(last) != 49:
        return "its end is missing, so it was cut off" if len(last) < 49 else "it has additional characters at its end"
    return "it has the wrong form, so it was mistyped or cut off"

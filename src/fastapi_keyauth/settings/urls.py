"""URLs of servers, and how their credentials stay out of messages."""

import re

_PARAMETER = re.compile(r"(?<=[?&])([^=&?]+)=[^&]*")
_SECRET = re.compile("pass|secret|token", re.IGNORECASE)


class MaskedUrl(str):
    """A URL whose repr masks its credentials, so that settings may be logged."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(masked_url(self))


def masked_url(url: str) -> str:
    """Return a URL without its credentials, for messages.

    Everything between the scheme and the last ``@`` is masked, because a password that is not percent-encoded can reach
    as far as that. So are the parameters whose names suggest a secret.
    """
    text = str.__str__(url)
    start = text.find("://") + 3 if "://" in text else 0
    _credentials, at, rest = text[start:].rpartition("@")
    shown = _PARAMETER.sub(lambda match: f"{match[1]}=***" if _SECRET.search(match[1]) else match[0], rest)
    return f"{text[:start]}{'***@' if at else ''}{shown}"

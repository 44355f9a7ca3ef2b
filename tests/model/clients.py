"""Random client requests: the strategies, and requests built from the drawn values."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.helpers.tokens import checksummed, forge, spoiled

from .model import Model
from .parts import Key, Request, Route, Rules, Session

ADDRESSES = ("203.0.113.7", "::ffff:203.0.113.7", "2001:db8:1:2::a", "2001:db8:1:2:ffff::b", None)
SHOP, EVIL, OURS = "https://shop.example", "https://evil.example", "https://ours.example"
MODELS = Route("GET", "/models")
ME = Route("GET", "/me", key="ignored", session="wanted")
ROUTES = (
    *(MODELS,) * 4,
    Route("GET", "/items", scope="items:read"),
    Route("GET", "/maybe", key="optional"),
    Route("POST", "/notes", session="wanted"),
    Route("POST", "/scoped-notes", session="wanted", scope="items:read"),
    ME,
    Route("GET", "/my-profile", key="ignored", session="wanted", scope="items:read"),
    Route("GET", "/api-keys/current"),
    Route("GET", "/api-keys", key="optional", session="instead", scope="keys:read"),
)
SENT = (
    *("in the header",) * 12,
    "as bearer",
    "in both",
    "missing",
    "empty",
    "mistyped",
    "wrong secret",
    "wrong secret",
    "unknown id",
    "other environment",
    "twice",
    "with another key",
)

WORKER = st.integers(0, 2)
USER = st.sampled_from(["alice", "bob"])
INDEX = st.integers(0, 5)
ADDRESS = st.sampled_from(ADDRESSES)
HOME = "203.0.113.99"
AT_HOME = st.sampled_from([*(HOME,) * 6, *ADDRESSES])
ORIGIN = st.sampled_from([None, None, None, None, SHOP, EVIL, OURS])
GRANTED = (["*"], ["*"], ["items:read"], ["items:write"], ["items:read", "keys:read", "keys:write"])
SCOPES = st.sampled_from([*GRANTED, ["*", "keys:write"], ["admin"]])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "enabled": st.booleans(),
    "scopes": SCOPES,
    "hourly_limit": st.sampled_from([None, 1, 4, 20]),
    "allowed_origins": st.sampled_from([[], [], [SHOP], [SHOP, EVIL]]),
    "allowed_ips": st.sampled_from([[], [], ["203.0.113.0/24"], ["2001:db8::/32"]]),
    "expires_at": st.sampled_from([None, None, 1, 60, 5000]),  # In this many seconds.
}
ONE_FIELD = st.sampled_from([*FIELDS, "enabled"]).flatmap(lambda name: FIELDS[name].map(lambda value: {name: value}))
NEW_FIELDS = st.one_of(
    st.just({}), st.fixed_dictionaries({}, optional={name: FIELDS[name] for name in FIELDS if name != "enabled"})
)
PAUSE_S = st.sampled_from([0, 0, 0.25, 100, 100, 900])
OVERLAP_S = st.sampled_from([0, 1, 60, 7200, 604_800])
RULES = st.sampled_from(
    [
        Rules(8, "fixed_window", block_spares_valid_keys=False, allowed_origins=(OURS,)),
        Rules(8, "sliding_window", block_spares_valid_keys=False, allowed_origins=(OURS,)),
        Rules(None, "sliding_window", block_spares_valid_keys=True, allowed_origins=(OURS,)),
    ]
)
SENDING = st.fixed_dictionaries(
    {
        "route": st.sampled_from(ROUTES),
        "back": st.sampled_from([0, 0, 0, 1, 1, 2]),
        "sent": st.sampled_from(SENT),
        "session": st.one_of(st.none(), st.none(), INDEX, INDEX, st.sampled_from(["unknown", "two", "empty"])),
        "origin": ORIGIN,
        "address": AT_HOME,
    }
)


class Clients:
    """Builder of requests from drawn values; an index selects an existing key or session.

    Args:
        model: Model that holds the keys and the sessions.
    """

    def __init__(self, model: Model) -> None:
        self._model = model

    def key(self, index: int) -> Key:
        """Return a key: those not revoked come first, the latest of them at the front."""
        keys = self._model.keys[::-1]
        in_order = [key for key in keys if not key.revoked] + [key for key in keys if key.revoked]
        return in_order[index % len(keys)]

    def session(self, index: int) -> Session:
        """Return a session, selected in the same way."""
        sessions = list(self._model.sessions.values())[::-1]
        ended = [session for session in sessions if session.revoked or session.expires_at <= self._model.now]
        in_order = [session for session in sessions if session not in ended] + ended
        return in_order[index % len(sessions)]

    def request(
        self,
        key: int,
        route: Route = MODELS,
        back: int = 0,
        sent: str = "in the header",
        session: int | str | None = None,
        origin: str | None = None,
        address: str | None = HOME,
    ) -> Request:
        """Return a request with a key's latest secret, an earlier secret, or an invalid token."""
        secrets = self.key(key).secrets
        token = secrets[-1 - back % len(secrets)].token
        changed = {
            "mistyped": spoiled(token),
            "wrong secret": forge(key_id=self.key(key).id, secret="W" * 43),
            "unknown id": forge(secret="U" * 43),
            "other environment": checksummed(token[:-6].replace("ka_live_", "ka_test_")),
        }.get(sent, token)
        header = {"missing": (), "as bearer": (), "empty": ("",), "twice": (token, token)}.get(sent, (changed,))
        other = self.key(key + 1).secrets[-1].token
        bearers = {"as bearer": (token,), "in both": (token,), "with another key": (other,)}.get(sent, ())
        return Request(route, address, header, bearers + self._session_values(session), origin)

    def _session_values(self, session: int | str | None) -> tuple[str, ...]:
        if isinstance(session, int):
            return (self.session(session).token,)
        unknown = tuple(checksummed(f"ks_{character * 43}") for character in "AB")
        return {None: (), "empty": ("",), "unknown": unknown[:1], "two": unknown}[session]

    def management(self, kind: str, target: Key | None, caller: tuple[str, int], address: str | None = HOME) -> Request:
        """Return a request to a management route, with a session or a key that usually may manage keys."""
        method = {"patch": "PATCH", "revoke": "DELETE"}.get(kind, "POST")
        path = "/api-keys" + (f"/{target.id}" if target else "") + ("/rotate" if kind == "rotate" else "")
        who, index = caller
        managers = [key for key in self._model.keys if key.scopes & {"keys:write", "admin"} and not key.revoked]
        key = managers[index % len(managers)] if managers and index else self.key(index)
        return Request(
            Route(method, path, key="optional", session="instead", scope="keys:write"),
            address,
            api_keys=() if who == "session" else (key.secrets[-1].token,),
            bearers=() if who == "key" else (self.session(index).token,),
        )

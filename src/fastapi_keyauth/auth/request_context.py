"""The state of one request during the checks of ``authenticator.py``."""

from collections.abc import Sequence
from typing import NamedTuple

from fastapi_keyauth.auth.credentials import Credentials
from fastapi_keyauth.domain.ip_addresses import ClientAddress
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost
from fastapi_keyauth.domain.principals import KeyPrincipal, SessionPrincipal
from fastapi_keyauth.errors import KeyAuthError
from fastapi_keyauth.limiter import Decision
from fastapi_keyauth.limiter.protocol import Charge


class Terms(NamedTuple):
    """On what terms a request may go on running, besides that its credentials stay valid.

    Attributes:
        key_scopes: What its key must hold.
        session_scopes: What its session must hold.
        outlives_rights: Whether it goes on without valid credentials: a change to keys confirms them again where it is
            committed, and may itself end their rights.
    """

    key_scopes: tuple[str, ...] = ()
    session_scopes: tuple[str, ...] = ()
    outlives_rights: bool = False


NO_TERMS = Terms()


class AuthContext:
    """The state of one request. It caches every outcome, so that a request is checked and counted once.

    Attributes:
        credentials: The credentials that were sent.
        address: The client's address, or None if the server gives none.
        origin: Value of the header ``Origin``, if it was sent.
        key: The key once its secret has been verified, also if the request is then refused.
        decision: Decision of the limiter, if the request was charged or a limit had no room for it.
        states: ``Decision.states`` after this request. Those of ``decision`` may be of an earlier one.
        cost: What the request costs of each unit.
        has_cost: Whether a requirement has set the cost.
        charge: The name of its charge, if a lost connection must not charge it twice.
        takes_key, takes_session: What the route accepts; for the challenges of a 401.
        key_outcome, session_outcome: What the checks of the key and of the session found. None: not checked yet.
        terms: On what terms it may go on running. None: its credentials stay valid.
        is_loop_unknown: Whether it may run in another event loop than the one in which its KeyAuth was started.
    """

    # What every request sets or reads has a slot, the fastest kind of attribute. What few requests set would cost all
    # of them time there, so it is an attribute of the class until it is set.
    __slots__ = (
        "__dict__",
        "address",
        "cost",
        "credentials",
        "decision",
        "key",
        "key_outcome",
        "origin",
        "states",
        "takes_key",
    )
    has_cost: bool = False
    charge: Charge | None = None
    takes_session: bool = False
    session_outcome: SessionPrincipal | KeyAuthError | None = None
    terms: Terms | None = None
    is_loop_unknown: bool = False

    def __init__(self, credentials: Credentials, address: ClientAddress | None, origin: str | None) -> None:
        self.credentials = credentials
        self.address = address
        self.origin = origin
        self.key: KeySnapshot | None = None
        self.decision: Decision | None = None
        self.states: Sequence[int] = ()
        self.cost: Cost = ONE_REQUEST
        self.takes_key = False
        self.key_outcome: KeyPrincipal | KeyAuthError | None = None

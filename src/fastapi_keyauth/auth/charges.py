"""Costs of requests beyond one unit, and the difference that a later requirement adds."""

import secrets

from fastapi_keyauth.auth.request_context import AuthContext
from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, highest_cost
from fastapi_keyauth.domain.principals import KeyPrincipal
from fastapi_keyauth.limiter import LimitCheck
from fastapi_keyauth.limiter.protocol import Charge

CHARGE_KEPT_S = 60
"""Seconds for which a charge of more than one request is known, so that a call that is sent twice charges once."""


def raise_cost(context: AuthContext, cost: Cost) -> LimitCheck | None:
    """Have a request cost at least this much. What it was charged already counts towards it.

    Returns:
        What is left to charge, if the request was charged already; otherwise None.
    """
    before, context.cost = context.cost, highest_cost(context.cost, cost) if context.has_cost else cost
    context.has_cost = True
    if context.cost != ONE_REQUEST and context.charge is None:
        context.charge = _new_charge()
    key = context.key
    if key is None or not isinstance(context.key_outcome, KeyPrincipal) or context.cost == before:
        return None
    charged = dict(before)
    rest = tuple((unit, max(0, number - charged.get(unit, 0))) for unit, number in context.cost)
    return LimitCheck(key.id, None, key.limits, rest, "", 0.0, True, key.owner_id, _new_charge())


def _new_charge() -> Charge:
    return Charge(secrets.token_hex(8), CHARGE_KEPT_S)

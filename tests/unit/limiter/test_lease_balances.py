"""What is left of limits that leases of one worker share. `test_balances.py` does it on a real Redis."""

from __future__ import annotations

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, limit_set
from fastapi_keyauth.limiter import Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.leases.balances import Balances
from fastapi_keyauth.limiter.leases.terms import Grant, Lease, LeaseAsk
from tests.helpers.limits import resolved

LIMITS = limit_set((resolved(limit=1000),), (resolved(limit=5000),))
FIVE: Cost = (("requests", 5),)
ENDS_S = 1_800_003_600


class Lab:
    """The balances of one worker."""

    def __init__(self) -> None:
        self.balances = Balances()

    def lease(
        self, key_id: str, units: int, left: tuple[int, int], cost: Cost = ONE_REQUEST, ends_s: int = ENDS_S
    ) -> Lease:
        """Get a lease. The server says what is left of the key's limit and of the owner's, without what is leased."""
        states = [left[0], 1800, ends_s, left[1], 1800, ends_s]
        ask = LeaseAsk(key_id, "o", LIMITS, cost, "g.o", units)
        lease = Lease(ask, Grant(units, 100, 500_000, 1800, states, "123 place"), 100.0, 100.1)
        self.balances.join(lease)
        return lease

    def correct(
        self, key_id: str, left: tuple[int, int], owner_id: str | None = "o", ends_s: int = ENDS_S
    ) -> list[int]:
        """Return what is left by a decision of the server, as the client gets to know it."""
        question = LimitCheck(key_id, None, LIMITS, ONE_REQUEST, "0:g.o", 1.0, False, owner_id)
        decision = Decision(Verdict.ADMITTED, states=[left[0], 1800, ends_s, left[1], 1700, ends_s])
        corrected = self.balances.correct(question, decision)
        assert corrected == decision._replace(states=corrected.states)
        assert [corrected.states[at] for at in (1, 2, 4, 5)] == [1800, ends_s, 1700, ends_s]
        return [corrected.states[0], corrected.states[3]]


def left_of(lease: Lease) -> list[int]:
    """Return what a lease says is left of the key's limit and of the owner's."""
    states = lease.states()
    return [states[0], states[3]]


def test_leases_of_two_keys_share_the_limit_of_their_owner() -> None:
    lab = Lab()
    one = lab.lease("k1", 10, (950, 4950), FIVE)
    assert left_of(one) == [1000, 5000]
    two = lab.lease("k2", 7, (993, 4943))
    assert (left_of(one), left_of(two)) == ([1000, 5000], [1000, 5000])
    one.take()
    two.take()
    assert (left_of(one), left_of(two)) == ([995, 4994], [999, 4994])


def test_decision_of_the_server_is_corrected_by_what_is_leased_here_and_corrects_leases() -> None:
    lab = Lab()
    one = lab.lease("k1", 10, (950, 4950), FIVE)
    one.take()
    assert lab.correct("k1", (940, 4930)) == [985, 4975]
    assert left_of(one) == [985, 4975]
    assert lab.correct("k2", (900, 4920)) == [900, 4965]
    assert left_of(one) == [985, 4965]
    assert lab.correct("k3", (900, 4900), owner_id="p") == [900, 4900]
    assert lab.correct("k3", (900, 4900), owner_id=None) == [900, 4900]


def test_units_of_another_window_are_not_added() -> None:
    lab = Lab()
    lab.lease("k1", 10, (950, 4950), FIVE)
    assert lab.correct("k1", (999, 4999), ends_s=ENDS_S + 3600) == [999, 4999]
    later = lab.lease("k1", 10, (990, 4990), ends_s=ENDS_S + 3600)
    assert left_of(later) == [1000, 5000]


def test_returned_units_stay_in_what_is_left_and_forfeited_units_do_not() -> None:
    for is_returned, left in ((True, 4994), (False, 4949)):
        lab = Lab()
        one, two = lab.lease("k1", 10, (950, 4950), FIVE), lab.lease("k2", 7, (993, 4943))
        one.take()
        two.take()
        lab.balances.leave(one, is_returned=is_returned)
        assert left_of(two) == [999, left]
        assert lab.correct("k2", (990, 4900)) == [996, 4906]  # the other lease's units are still here


def test_nothing_is_kept_of_counters_of_which_nothing_is_leased_any_more() -> None:
    lab = Lab()
    question = LimitCheck("k1", None, LIMITS, ONE_REQUEST, "0:g.o", 1.0, False, "o")
    decision = Decision(Verdict.ADMITTED, states=(900, 1800, ENDS_S, 4900, 1800, ENDS_S))
    for is_returned in (True, False):
        lease = lab.lease("k1", 10, (990, 4990))
        assert lab.balances.correct(question, decision) is not decision
        lab.balances.leave(lease, is_returned=is_returned)
        assert lab.balances.correct(question, decision) is decision


def test_decision_without_limits_stays_as_it_is_beside_leases() -> None:
    lab = Lab()
    lab.lease("k1", 10, (990, 4990))
    refused = Decision(Verdict.STALE, "0:h.o")
    question = LimitCheck("k1", None, LIMITS, ONE_REQUEST, "0:g.o", 1.0, False, "o")
    assert lab.balances.correct(question, refused) is refused

"""Section 2, the order itself: of any two findings that can occur together, the earlier row is reported."""

from itertools import combinations

import pytest

from tests.helpers.findings import FINDINGS, OF_THE_KEY, post_note, request_with, row_of
from tests.helpers.stage import HOUR_S, OpenScene, code_of

# Each finding alone is tried on both stores and both limiters; their order is the authenticator's.
STACKS = ("sqlite-redis6",)


def go_together(one: str, other: str) -> bool:
    """Return whether one request can have both defects, in different rows."""
    if row_of(one) == row_of(other):
        return False
    if "missing" in (one, other) and ({one, other} & OF_THE_KEY):
        return False
    return {one, other} not in (
        {"no session", "bad session"},
        {"no session", "session lacks scope"},
    )


PAIRS = [
    (one, other) if row_of(one) < row_of(other) else (other, one)
    for one, other in combinations(FINDINGS, 2)
    if go_together(one, other)
]


@pytest.mark.parametrize("earlier", dict.fromkeys(earlier for earlier, _ in PAIRS))
async def test_the_earlier_of_two_findings_is_reported(open_scene: OpenScene, earlier: str) -> None:
    """All pairs of a finding use one app, since creating an app takes longer than a request."""
    async with open_scene() as scene:
        for later in [later for one, later in PAIRS if one == earlier]:
            scene.clock.advance(HOUR_S)  # Ends blocks and frees units.
            _, request = await request_with(scene, later, earlier)
            answer = await post_note(scene, request)
            assert (answer.status_code, code_of(answer)) == FINDINGS[earlier][:2], later

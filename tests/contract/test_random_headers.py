"""Ten thousand random pairs of headers on a route with a key: 401 for each, never a 5xx."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .asgi import call
from .stage import Scene
from .test_bad_input import raw_values

STACKS = ("sqlite-memory",)  # what is checked here happens before the store and the limiter
EXAMPLES = 200
VALUES_EACH = 50


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=st.lists(st.tuples(raw_values, raw_values), min_size=VALUES_EACH, max_size=VALUES_EACH))
async def test_ten_thousand_random_header_values_meet_a_401(
    patient_scene: Scene, values: list[tuple[bytes, bytes]]
) -> None:
    for key, authorization in values:
        answer = await call(patient_scene.app, headers=[(b"api-key", key), (b"authorization", authorization)])
        assert answer.status == 401, (key, authorization, answer)

"""Random sequences of events: answers, usage, counts and blocks match the contract.

`make fuzz` runs many more stories than `make test`, with new ones each time.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.helpers.fuzzing import IS_LONG, fuzz_settings
from tests.helpers.session import Servers
from tests.helpers.thorough import turns

from .comparing import Stage
from .machine import KeysInUse

STORIES = turns(thorough=16, brief=10)
STEPS = 16


@pytest.mark.fuzz
@pytest.mark.timeout(0 if IS_LONG else 300)
@pytest.mark.parametrize("limiter", ["memory", "valkey"])
def test_responses_match_the_model_after_any_sequence_of_steps(
    servers: Servers, limiter: Literal["memory", "valkey"]
) -> None:
    redis_url = None if limiter == "memory" else servers.fresh_redis_url(limiter)

    class Machine(KeysInUse):
        stage = Stage(Path(tempfile.mkdtemp(dir=servers.folder)), redis_url)

    try:
        run_state_machine_as_test(
            Machine,
            settings=fuzz_settings(STORIES, stateful_step_count=STEPS),
        )
    finally:
        Machine.stage.close()

"""Durations of the tests with random input.

`make test` is brief and repeats the same input; `make fuzz` runs longer, with new input each time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TIMES = int(os.environ.get("KEYAUTH_TEST_FUZZ_TIMES", "0"))
"""Factor for the number of inputs in `make test`; 0 is `make test` itself."""
IS_LONG = TIMES > 0

Test = Callable[..., Any]


def fuzz_settings(examples: int, **more: Any) -> settings:
    """Return Hypothesis settings for this many examples in `make test`."""
    return settings(
        max_examples=examples * max(1, TIMES),
        deadline=None,
        derandomize=not IS_LONG,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


def fuzzed(examples: int) -> Callable[[Test], Test]:
    """Mark a test with Hypothesis' `@given` as part of `make fuzz`, with this many examples in `make test`."""
    rules = fuzz_settings(examples)
    return lambda test: pytest.mark.fuzz(rules(test))


only_long = pytest.mark.skipif(not IS_LONG, reason="measures, and takes its time: `make fuzz` runs it")

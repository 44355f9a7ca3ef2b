"""Random schedules, and the smallest part of one that still fails."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from fastapi_keyauth.domain.limit_sets import ONE_REQUEST, Cost, LimitSet
from fastapi_keyauth.domain.limits import Limit
from tests.simulation.world import Action, Schedule

DAY_MS = 86_400_000
LASTS_MS = 900
THREE_TOKENS: Cost = (("requests", 1), ("tokens", 3))


def make_schedule(seed: int) -> Schedule:
    """Return the schedule with this number."""
    rng = random.Random(seed)
    is_calm = rng.random() < 0.4
    workers = rng.randint(1, 3)
    owner = [_limit(rng, f"o{number}") for number in range(rng.choice((0, 0, 1)))]
    limits = tuple(
        LimitSet([_limit(rng, f"k{number}") for number in range(rng.choice((0, 1, 1, 2)))], owner)
        for _ in range(rng.choice((1, 1, 2)))
    )
    actions = [_burst(rng, workers, len(limits)) for _ in range(rng.randint(2, 5))]
    if rng.random() < 0.1:
        actions += _crowd(rng, workers, len(limits))
    actions += [_change(rng, len(limits)) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.4:
        at_ms, bucket = rng.uniform(0, LASTS_MS), rng.choice("ab")
        actions += [Action(at_ms + number, "fail", (bucket,)) for number in range(2)]
        actions.append(
            rng.choice((Action(at_ms + 3, "fail", (bucket,)), Action(at_ms + 3, "ambush", ("fail", bucket))))
        )
    if not is_calm:
        actions += [_disturbance(rng, workers) for _ in range(rng.randint(1, 4))]
    actions += [
        Action(rng.uniform(0, LASTS_MS), "report", (rng.randrange(workers),)) for _ in range(rng.choice((0, 0, 1, 4)))
    ]
    actions.sort(key=lambda action: action.at_ms)
    return Schedule(
        seed=seed,
        actions=tuple(actions),
        limits=limits,
        workers=workers,
        delay_ms=rng.choice((1, 10, 20)) if is_calm else rng.choice((1, 20, 150)),
        # Before the end of an hour, of a second, or anywhere.
        starts_at_ms=20_000 * DAY_MS - rng.choice((300, 450, rng.randint(0, DAY_MS))),
        is_calm=is_calm,
    )


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Return a schedule that still fails, and no longer does if any of its actions is left out."""
    actions = list(schedule.actions)
    size = max(1, len(actions) // 2)
    while size:
        position = 0
        while position < len(actions):
            fewer = actions[:position] + actions[position + size :]
            if fails(replace(schedule, actions=tuple(fewer))):
                actions = fewer
            else:
                position += size
        size //= 2
    return replace(schedule, actions=tuple(actions))


def _limit(rng: random.Random, name: str) -> Limit:
    return Limit(
        name=name,
        limit=rng.choice((40, 100, 200, 600)),
        per=rng.choice((1, 1, 2, "minute")),
        unit=rng.choice(("requests", "requests", "requests", "tokens")),
        algorithm=rng.choice(("fixed_window", "fixed_window", "sliding_window")),
    )


def _burst(rng: random.Random, workers: int, keys: int) -> Action:
    """Return requests that are over soon, or that outlast a lease, so that it is renewed."""
    count, gap_ms = rng.choice(((6, 0.5), (12, 0.5), (12, 2), (25, 2), (25, 6), (40, 4)))
    return Action(
        rng.uniform(0, LASTS_MS),
        "burst",
        (
            rng.randrange(workers),
            rng.randrange(keys),
            rng.choice((None, "a", "a", "b")),
            rng.choice((ONE_REQUEST, ONE_REQUEST, THREE_TOKENS)),
            count,
            gap_ms,
        ),
    )


def _crowd(rng: random.Random, workers: int, keys: int) -> list[Action]:
    """Use up what is left while another worker has a lease of the key."""
    at_ms, key = rng.choice((250, 400, rng.uniform(0, LASTS_MS))), rng.randrange(keys)
    few, many = (
        (rng.randrange(workers), key, None, ONE_REQUEST, 12, rng.choice((1, 8))),
        (0, key, None, ONE_REQUEST, 120, 0.1),
    )
    return [Action(at_ms, "burst", few), Action(at_ms + rng.uniform(10, 90), "burst", many)]


def _change(rng: random.Random, keys: int) -> Action:
    at_ms, key = rng.uniform(0, LASTS_MS), rng.choice((None, *range(keys)))
    return rng.choice((Action(at_ms, "change", (key,)), Action(at_ms, "ambush", ("change", key))))


def _disturbance(rng: random.Random, workers: int) -> Action:
    kind = rng.choice(("pause", "pause", "kill", "break", "ambush", "restart", "flush", "snapshot", "replace"))
    at_ms, number = rng.uniform(0, LASTS_MS), rng.randrange(workers)
    if kind == "ambush":
        return Action(at_ms, kind, ("break", number))
    if kind == "pause":
        return Action(at_ms, kind, (number, rng.choice((20, 60, 150, 400))))
    return Action(at_ms, kind, (number,) if kind in ("kill", "break") else ())

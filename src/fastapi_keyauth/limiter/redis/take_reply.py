"""Replies of ``lua/take.lua`` to questions of requests."""

import math
from collections.abc import Sequence
from typing import Any

from fastapi_keyauth.limiter.protocol import Decision, LimitCheck, Verdict
from fastapi_keyauth.limiter.redis.encoding import LimitEncoder

_VERDICTS = tuple(Verdict)


def read_decisions(
    questions: Sequence[LimitCheck], reply: Sequence[Any], encoder: LimitEncoder, epoch: int
) -> list[Decision]:
    """Return the decisions in a reply.

    Args:
        questions: The questions.
        reply: Five items for each question.
        encoder: Encoded the limits.
        epoch: The epoch of the limiter, to which the generations belong.
    """
    prefix = f"{epoch}:"
    fields = iter(reply)
    decisions = []
    for question, verdict, generation, hour, wait_s, states in zip(questions, *[fields] * 5, strict=True):
        if states and len(states) == len(question.limits.all):
            encoded = encoder.encode(question.limits, question.cost or (), wait_s * 1000)
            if verdict:
                wait_s, states = encoded.exhausted_states(wait_s, states)
            else:
                states = encoded.states(wait_s, states)
                wait_s = states[1]
        decisions.append(
            # Like Decision(...), but without a call of its Python-level __new__ for each request.
            tuple.__new__(
                Decision,
                (
                    _VERDICTS[verdict],
                    prefix + generation if generation else "",
                    wait_s,
                    hour,
                    math.inf,  # every change replaces the generation in Redis
                    states,
                    (),  # the script counts usage
                ),
            )
        )
    return decisions

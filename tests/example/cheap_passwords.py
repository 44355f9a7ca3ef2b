"""`python -m tests.example.cheap_passwords ...`: `python -m example_app ...` with cheap password hashes.

A hash of the example takes a tenth of a CPU second, and random requests log in a hundred times.
"""

from __future__ import annotations

import runpy
from functools import partial

import argon2

CheapHasher = partial(argon2.PasswordHasher, time_cost=1, memory_cost=8, parallelism=1)


def main() -> None:
    """Run the demo."""
    argon2.PasswordHasher = CheapHasher  # type: ignore[assignment,misc]  # a function that makes one
    runpy.run_module("example_app", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

"""Leases: units that a worker takes in advance, so that it can admit requests with a busy key without calling Redis.

No I/O. ``book.py`` decides by the leases of one worker, ``balances.py`` knows what is left of their limits,
``addresses.py`` knows which addresses are not blocked, ``demand.py`` measures how busy keys are, ``terms.py`` has the
types that pass between a worker and the limiter, and ``clock.py`` has the clock and the durations.
``docs/explanation/design.md`` explains why leases weaken no guarantee.
"""

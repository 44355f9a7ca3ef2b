"""Leases: units that a worker takes in advance, so that it admits a busy key's requests without asking Redis.

No I/O: ``book.py`` keeps the leases of one worker, ``terms.py`` has what is asked, granted and returned, and
``clock.py`` the clock and the durations. ``docs/design.md`` explains why a lease weakens no promise.
"""

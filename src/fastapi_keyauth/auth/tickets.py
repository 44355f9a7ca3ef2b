"""Verification tickets: proofs in Redis, shared by all workers, that a secret has passed Argon2.

A ticket proves to a worker that knows ``ticket_key`` that a secret matches a stored hash. A worker that receives a
token for the first time, such as after a deployment, compares the ticket and need not run Argon2. Whether the key is
active is decided by its row, as always.
"""

import hashlib
import hmac
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from fastapi_keyauth.concurrency.single_flight import SingleFlight
from fastapi_keyauth.domain.keys import KeySnapshot
from fastapi_keyauth.errors import LimiterUnavailable
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.telemetry.counters import Counters

_PURPOSE = b"fastapi-keyauth verification ticket 1"


class TicketStore(Protocol):
    """Stores tickets where all workers find them; see ``Limiter``."""

    async def read_ticket(self, key_id: str, secret_id: int) -> str | None:
        """Return the ticket of a secret, or None."""

    async def write_ticket(self, key_id: str, secret_id: int, ticket: str) -> None:
        """Replace the ticket of a secret."""


class Tickets:
    """Creates and compares the tickets of one KeyAuth.

    A ticket is ``HMAC-SHA-256(HMAC-SHA-256(ticket_key, PHC string), secret)``. Those who read Redis see 256 bits under
    a key that they do not know. Those who write Redis cannot create one, even with a copy of the database, since the
    ticket key is in neither. The PHC string changes with the secret and with its hash, and invalidates the ticket.

    Args:
        ticket_keys: The keys. The first one signs; all of them are accepted, so that a key can be replaced.
        store: Store of the tickets.
        counters: Counters of tickets that replaced a run of Argon2.
    """

    def __init__(self, ticket_keys: Sequence[str], store: TicketStore, counters: Counters) -> None:
        self._keys = [ticket_key.encode() for ticket_key in ticket_keys]
        self._store = store
        self._counters = counters
        self._writes: SingleFlight[int, None] = SingleFlight("keyauth-ticket")

    @classmethod
    def of(cls, settings: KeyAuthSettings, store: TicketStore, counters: Counters) -> "Tickets | None":
        """Create the tickets for the settings. None without ``ticket_key``, or without Redis."""
        if not settings.ticket_key or settings.redis_url is None:
            return None
        return cls([ticket_key.get_secret_value() for ticket_key in settings.ticket_key], store, counters)

    async def is_proven(self, key: KeySnapshot, secret: str, secret_hash: str) -> bool:
        """Return whether a stored ticket proves that a secret matches its hash, compared in constant time.

        Args:
            key: The key, whose row was found by the secret's tag.
            secret: The secret that the client sent.
            secret_hash: PHC string of the key's secret.
        """
        try:
            ticket = await self._store.read_ticket(key.id, key.secret_id)
        except LimiterUnavailable:
            return False  # logged where it happens; Argon2 decides
        if ticket is None:
            return False
        sent = ticket.encode()
        is_proven = any(hmac.compare_digest(sent, _sign(signer, secret, secret_hash)) for signer in self._keys)
        self._counters.ticketed += is_proven
        return is_proven

    def issue_soon(self, key: KeySnapshot, secret: str, secret_hash: str) -> None:
        """Store the ticket of a secret that has just passed Argon2, in the background."""
        ticket = _sign(self._keys[0], secret, secret_hash).decode()
        self._writes.start(key.secret_id, lambda: self._write(key, ticket))

    async def _write(self, key: KeySnapshot, ticket: str) -> None:
        with suppress(LimiterUnavailable):  # the next process that runs Argon2 stores it
            await self._store.write_ticket(key.id, key.secret_id, ticket)

    async def close(self) -> None:
        """Wait until all tickets that are being written are stored, or have failed."""
        await self._writes.settle()


def _sign(ticket_key: bytes, secret: str, secret_hash: str) -> bytes:
    """Return a ticket as hexadecimal digits."""
    for_hash = hmac.digest(ticket_key, _PURPOSE + secret_hash.encode(), hashlib.sha256)
    return hmac.digest(for_hash, secret.encode(), hashlib.sha256).hex().encode()

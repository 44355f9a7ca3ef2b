"""Authorities on which keys are changed."""

from collections.abc import Collection
from typing import Protocol

from fastapi_keyauth.domain.keys import CODE, COMMAND_LINE, Actor
from fastapi_keyauth.store.callers import Authority, CallerRows


class ChangeAuthority(Authority, Protocol):
    """An authority that also determines whose turn a change takes, and which keys it reaches."""

    @property
    def turn(self) -> str | None:
        """The owner in whose name the change waits for its turn. None: the application, to which no bound applies."""

    @property
    def owner_ids(self) -> Collection[str] | None:
        """The owners whose keys it may see. None: all."""

    @property
    def changeable_owner_ids(self) -> Collection[str] | None:
        """The owners whose keys it may change. None: all."""

    async def renew(self) -> None:
        """Read again, just before the transaction, what only the application knows.

        Raises:
            Refusal: If the caller is no longer permitted to do this.
        """


class TrustedCode:
    """The authority of code and of the command line, which cannot be revoked.

    Args:
        name: The actor in the history.
    """

    key_id = None
    owner_ids = None
    changeable_owner_ids = None
    turn = None

    def __init__(self, name: str = CODE) -> None:
        self._name = name

    def actor(self, reason: str | None = None) -> Actor:
        """Return who makes the change."""
        # Only operators run the command line. Other code may be a page on which owners manage their own keys.
        return Actor(self._name, reason=reason, is_admin=self._name.startswith(COMMAND_LINE))

    async def renew(self) -> None:
        """Do nothing: code does not lose its authority."""

    async def confirm(self, rows: CallerRows) -> None:
        """Do nothing: code does not lose its authority."""


TRUSTED = TrustedCode()

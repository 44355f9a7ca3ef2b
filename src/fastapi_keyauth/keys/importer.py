"""Import of keys from other systems: all lines are checked first, then all keys are written or no key is."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from fastapi_keyauth.domain import imported_tokens as foreign
from fastapi_keyauth.domain.keys import Actor
from fastapi_keyauth.domain.text import explain
from fastapi_keyauth.domain.tokens import new_key_id
from fastapi_keyauth.domain.validation import (
    check_catalog,
)
from fastapi_keyauth.errors import BadLine, ImportRefused, InvalidField
from fastapi_keyauth.keys.import_columns import ImportedKey
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store.imported_keys import MAX_ROWS, ImportStore, LookupTaken, NewRows

logger = logging.getLogger("fastapi_keyauth")

MAX_BAD_LINES = 100
"""Maximum number of invalid lines that are listed. Further ones are only counted."""

Progress = Callable[[int], None]
"""Called with a number of completed lines. Each line counts twice: once when checked, once when written."""


@dataclass(frozen=True, slots=True)
class Line:
    """One record of a file.

    Attributes:
        number: Position in the file, starting at 1.
        values: Column to value.
        problem: Why the line could not be read. If set, ``values`` is empty.
    """

    number: int
    values: Mapping[str, Any]
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """Result of an import, or with ``dry_run``, the result that it would have had.

    Attributes:
        imported: Number of new keys.
        skipped: Number of lines whose token already belongs to a key.
        key_ids: Ids of the new keys, in the order of the records. Empty if nothing was written.
        with_all_scopes: Number of new keys that have the scope ``*`` because their record names no scopes. Added in
            0.2.
    """

    imported: int
    skipped: int
    key_ids: tuple[str, ...] = ()
    with_all_scopes: int = 0


class _Import:
    """One import: checks the lines and writes them.

    Args:
        settings: The defaults, and the catalog of scopes.
        store: Store to which the keys are written.
        now: The current time, UTC.
        actor: Actor that the history records.
    """

    def __init__(self, settings: KeyAuthSettings, store: ImportStore, now: datetime, actor: Actor) -> None:
        self._actor = actor
        self._settings = settings
        self._policy = settings.key_policy
        self._store = store
        self._now = now
        self._bad: list[BadLine] = []
        self._bad_count = 0
        self._without_scopes: set[str] = set()

    async def run(self, lines: Iterable[Line], dry_run: bool, skip_existing: bool, advance: Progress) -> ImportOutcome:
        """Check every line, then write all of them.

        Raises:
            ImportRefused: With the invalid lines. Nothing was written.
        """
        found: dict[str, tuple[int, NewRows]] = {}
        for number, rows in self._check_all(lines, advance):
            if number % MAX_ROWS == 0:
                await asyncio.sleep(0)  # let the event loop serve requests during an import
            if rows is None:
                continue
            lookup = rows.secret["lookup"]
            if lookup in found:
                self._refuse(number, None, f"has the same token as line {found[lookup][0]}")
            else:
                found[lookup] = (number, rows)
        known = await self._store.find_known(list(found))
        if not skip_existing:
            for lookup, (number, _) in found.items():
                if lookup in known:
                    self._refuse(number, None, "its token, or its public part, belongs to a key already")
        self._stop_if_bad()
        new = [rows for lookup, (_, rows) in found.items() if lookup not in known]
        with_all_scopes = sum(rows.key["id"] in self._without_scopes for rows in new)
        if dry_run:
            return ImportOutcome(len(new), len(known), with_all_scopes=with_all_scopes)
        try:
            await self._store.add(new, advance)
        except LookupTaken:
            # Another import wrote them after find_known. A retry will find them.
            self._refuse(0, None, "another import has just written one of these tokens; try again")
            self._stop_if_bad()
        logger.info("imported %d keys", len(new), extra={"keyauth_event": "imported"})
        return ImportOutcome(len(new), len(known), tuple(rows.key["id"] for rows in new), with_all_scopes)

    def _check_all(self, lines: Iterable[Line], advance: Progress) -> Iterator[tuple[int, NewRows | None]]:
        """Yield the number and the rows of each line. The rows are None if the line was rejected."""
        for line in lines:
            rows = None
            try:
                if line.problem is not None:
                    self._refuse(line.number, None, line.problem)
                else:
                    rows = self._rows_of(line.values)
            except ValidationError as error:
                for part in error.errors(include_input=False, include_url=False, include_context=False):
                    message = explain(part)
                    is_unknown = part["type"] == "extra_forbidden"
                    field = None if is_unknown else str(part["loc"][0])
                    self._refuse(line.number, field, "has an unknown column" if is_unknown else message)
            except InvalidField as error:
                self._refuse(line.number, error.field, error.message)
            yield line.number, rows
            advance(1)

    def _rows_of(self, values: Mapping[str, Any]) -> NewRows:
        """Return the rows of one line.

        Raises:
            ValidationError, InvalidField: If a value is invalid.
        """
        # Empty cells of a CSV file count as missing columns.
        line = ImportedKey.model_validate({name: value for name, value in values.items() if value not in ("", None)})
        check_catalog(line.scopes, self._settings.scopes)
        found = self._hash_of(line)
        created_at = self._now if line.created_at is None else line.created_at
        for field, moment in (("created_at", created_at), ("last_used_at", line.last_used_at)):
            if moment is not None and moment > self._now:
                raise InvalidField(field, "must not be in the future")
        id = new_key_id()
        if "scopes" not in line.model_fields_set:
            self._without_scopes.add(id)
        scheme = foreign.scheme_name(found.scheme, line.hashed)
        policy = line.model_dump(
            include={"owner_id", "name", "scopes", "hourly_limit", "allowed_origins", "allowed_ips"}
        )
        key = {
            **policy,
            "id": id,
            "expires_at": self._policy.complete(line.expires_at, self._now, line.exempt_from_policy, "expires_at"),
            "policy": self._policy.mark(line.exempt_from_policy),
            "environment": line.environment or self._settings.default_environment,
            "metadata": line.metadata,
            "enabled": line.enabled,
            "created_at": created_at,
            "created_by": self._actor.name,
            "imported_at": self._now,
            "last_used_at": line.last_used_at,
        }
        secret = {
            "key_id": id,
            "tag": "",  # unknown before the first use; matches no token, since tags have eight characters
            "hash": found.text,
            "scheme": scheme,
            "lookup": foreign.lookup_key(found, line.public),
            "last4": line.last4,
            "created_at": created_at,
        }
        changes = {"imported": {"scheme": scheme}}
        event = {"key_id": id, "event": "created", "actor": self._actor.name, "at": self._now, "changes": changes}
        return NewRows(key, secret, event)

    @staticmethod
    def _hash_of(line: ImportedKey) -> foreign.ForeignHash:
        try:
            found = foreign.parse_hash(line.hash)
        except foreign.ForeignHashError as error:
            raise InvalidField("hash", str(error)) from None
        if line.public is None:
            if found.is_salted:
                message = f"is required with {found.scheme}, since a salted hash cannot be found by a token"
                raise InvalidField("public", message)
            if line.hashed == "secret":
                raise InvalidField("public", "is required if only the secret was hashed")
        elif (
            found.scheme == "bcrypt" and line.hashed == "token" and len(line.public) > foreign.MAX_BCRYPT_PUBLIC_LENGTH
        ):
            raise InvalidField(
                "public", "is too long: bcrypt reads only 72 bytes, too few of which belong to the secret"
            )
        return found

    def _refuse(self, number: int, field: str | None, message: str) -> None:
        self._bad_count += 1
        if len(self._bad) < MAX_BAD_LINES:
            self._bad.append(BadLine(number, field, message))

    def _stop_if_bad(self) -> None:
        if self._bad:
            raise ImportRefused(sorted(self._bad, key=lambda bad: bad.line), self._bad_count)


class Importer:
    """Imports keys from another system.

    Args:
        settings: The defaults, and the catalog of scopes.
        store: Store to which the keys are written.
        now: Returns the current time, UTC.
    """

    def __init__(self, settings: KeyAuthSettings, store: ImportStore, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._store = store
        self._now = now

    async def run(
        self, lines: Iterable[Line], dry_run: bool, skip_existing: bool, advance: Progress, actor: Actor
    ) -> ImportOutcome:
        """Check every line, then write all of them.

        Raises:
            ImportRefused: With the invalid lines. Nothing was written.
        """
        job = _Import(self._settings, self._store, self._now(), actor)
        return await job.run(lines, dry_run, skip_existing, advance)

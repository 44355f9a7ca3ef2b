"""The revision of the tables, and their creation in an empty database.

This module does not import Alembic, because every start imports it and only an upgrade needs Alembic.
"""

import logging

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from fastapi_keyauth.errors import SetupError
from fastapi_keyauth.store.tables import KeyRow, metadata

logger = logging.getLogger("fastapi_keyauth")

VERSION_TABLE = "keyauth_alembic_version"
"""A name of its own: an application that uses Alembic has ``alembic_version``."""
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""Revisions in ``store/migrations/versions``, oldest first. Listed here so that a start need not read those files."""
FIRST, NEWEST = REVISIONS[0], REVISIONS[-1]

# As Alembic itself creates it.
_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def find_revision(connection: Connection) -> str | None:
    """Return the revision of the tables; None if they do not exist.

    Tables without a version table have the first revision, which did not have one.
    """
    inspector = inspect(connection)
    # Checked first: another process may commit the tables and their version between these two checks.
    has_tables = inspector.has_table(str(KeyRow.__tablename__))
    if inspector.has_table(VERSION_TABLE):
        found = connection.execute(select(_version.c.version_num)).scalar()
        if found is not None:
            return str(found)
    return FIRST if has_tables else None


def create(connection: Connection) -> str:
    """Create the newest tables unless another process has created some meanwhile. Return their revision."""
    revision = find_revision(connection)
    if revision is None:
        metadata.create_all(connection)
        mark(connection, NEWEST)
        return NEWEST
    return revision


def check_revision(revision: str | None, where: str) -> None:
    """Check that this version works on tables of a revision. A newer one only adds, so it is only logged.

    Args:
        revision: The revision of the tables.
        where: URL of the database, without its credentials.

    Raises:
        SetupError: If the tables are of an older version.
    """
    if revision in REVISIONS[:-1]:
        raise SetupError(
            f"The tables in {where} are of an older version (revision {revision}, required is {NEWEST}): run `keyauth"
            " db upgrade`, or await auth.upgrade(), and start again."
        )
    if revision != NEWEST:
        logger.warning(
            "the tables are of a newer version (revision %s, known is %s)",
            revision,
            NEWEST,
            extra={"keyauth_event": "tables_newer"},
        )


def mark(connection: Connection, revision: str) -> None:
    """Record the revision of tables that have no recorded one."""
    _version.create(connection, checkfirst=True)
    if connection.execute(select(_version.c.version_num)).first() is None:
        connection.execute(insert(_version).values(version_num=revision))

"""Which revision of the tables a database has, and the tables of one that is empty.

No Alembic here: every start comes by, and only an upgrade needs it.
"""

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select

from fastapi_keyauth.store.tables import KeyRow, metadata

VERSION_TABLE = "keyauth_alembic_version"
"""Ours alone: an application that uses Alembic has its own ``alembic_version``."""
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""Of ``store/migrations/versions``, oldest first. Written down, so that a start need not read those files."""
FIRST, NEWEST = REVISIONS[0], REVISIONS[-1]

# As Alembic itself makes it.
_version = Table(
    VERSION_TABLE,
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name=f"{VERSION_TABLE}_pkc"),
)


def find_revision(connection: Connection) -> str | None:
    """The revision of the tables; None where there are none.

    Tables without a version were made before there was one: they are those of the first revision.
    """
    inspector = inspect(connection)
    # Looked for first: whoever makes the tables commits them with their version, perhaps between these two looks.
    has_tables = inspector.has_table(str(KeyRow.__tablename__))
    if inspector.has_table(VERSION_TABLE):
        found = connection.execute(select(_version.c.version_num)).scalar()
        if found is not None:
            return str(found)
    return FIRST if has_tables else None


def create(connection: Connection) -> str:
    """Make the newest tables, unless another process has made some since we looked. Gives the revision there is now."""
    revision = find_revision(connection)
    if revision is None:
        metadata.create_all(connection)
        mark(connection, NEWEST)
        return NEWEST
    return revision


def mark(connection: Connection, revision: str) -> None:
    """Write down the revision of tables that have none written down yet."""
    _version.create(connection, checkfirst=True)
    if connection.execute(select(_version.c.version_num)).first() is None:
        connection.execute(insert(_version).values(version_num=revision))

"""Whether the role of a database may write, found out without changing anything."""

from sqlalchemy import delete, false, func, insert, select, update

from fastapi_keyauth.errors import SetupError, StoreUnavailable
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.health import describe
from fastapi_keyauth.store.tables import metadata


async def check_writes(database: Database) -> None:
    """Execute an INSERT, UPDATE and DELETE without rows on every table. Added in 0.2.

    Rights are checked all the same, and so is whether an SQLite file or a PostgreSQL server takes writes.

    Args:
        database: An open database that has the tables.

    Raises:
        SetupError: If one of them is rejected. One sentence that names the table.
    """
    for target in metadata.sorted_tables:
        nothing = select(*target.c).where(false())
        column = target.primary_key.columns.values()[0]
        try:
            async with database.write() as connection:
                await connection.execute(insert(target).from_select(list(target.c), nothing))
                await connection.execute(update(target).where(false()).values({column: column}))
                await connection.execute(delete(target).where(false()))
                may_number = func.has_sequence_privilege(func.pg_get_serial_sequence(target.name, "id"), "USAGE")
                is_numbered = not database.is_sqlite and column is target.autoincrement_column
                if is_numbered and (await connection.execute(select(may_number))).scalar_one() is False:
                    raise SetupError(f"The role may not use the sequence of {target.name}: grant USAGE on it.")
        except StoreUnavailable as error:
            raise SetupError(
                f"The role may not write to {target.name} ({describe(error.__cause__ or error)})."
            ) from None

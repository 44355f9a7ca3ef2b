"""The script that Alembic runs, on the connection and in the transaction of ``config.attributes``."""

from alembic import context

from fastapi_keyauth.store.schema import VERSION_TABLE
from fastapi_keyauth.store.tables import metadata

attributes = context.config.attributes
context.configure(
    connection=attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    on_version_apply=attributes["on_version_apply"],
)
context.run_migrations()

"""The Alembic migrations: the revisions of the tables, and the upgrades from any of them to the newest.

They have a version table of their own and touch no table whose name does not start with ``keyauth_``, so that they
and the application's migrations leave each other alone.
"""

"""Alembic's part: the revisions of our tables, and the way from any of them to the newest.

They have a version table of their own and touch no table whose name does not start with ``keyauth_``, so that the
application's migrations and ours leave each other alone.
"""

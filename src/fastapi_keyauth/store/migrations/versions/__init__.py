"""The revisions, oldest first.

Servers of the previous version keep working on the new tables while servers are replaced one by one. So a revision
only adds: tables, indexes, and columns that may be null or have a server default.
"""

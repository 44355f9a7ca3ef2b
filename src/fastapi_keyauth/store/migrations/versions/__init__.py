"""The revisions, oldest first.

A service of the version before goes on working on the tables of the next one while servers are replaced one by one. So
a revision only adds: tables, indexes, and columns that may be null or have a server default.
"""

"""Every SQL statement of the project.

Writes name their columns: no code path writes a whole loaded row back, which is how revoked keys come back to life.
"""

from fastapi_keyauth.store.changes import KeyChange
from fastapi_keyauth.store.database import Database
from fastapi_keyauth.store.keys import KeyStore
from fastapi_keyauth.store.owners import OwnerStore
from fastapi_keyauth.store.pending_changes import PendingChangeStore
from fastapi_keyauth.store.retention import PruneStore
from fastapi_keyauth.store.sessions import SessionStore
from fastapi_keyauth.store.usage import Usage, UsageStore
from fastapi_keyauth.store.usage_days import UsageDayStore
from fastapi_keyauth.store.usage_reports import UsageReportStore

__all__ = [
    "Database",
    "KeyChange",
    "KeyStore",
    "OwnerStore",
    "PendingChangeStore",
    "PruneStore",
    "SessionStore",
    "Usage",
    "UsageDayStore",
    "UsageReportStore",
    "UsageStore",
]

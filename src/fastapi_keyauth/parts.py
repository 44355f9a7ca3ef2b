"""The parts of a KeyAuth, each built once and handed to those that use it."""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

from fastapi_keyauth.auth.authenticator import Authenticator
from fastapi_keyauth.auth.blocked_addresses import Blocks
from fastapi_keyauth.auth.credentials import CredentialReader
from fastapi_keyauth.auth.hashing import Hasher
from fastapi_keyauth.auth.key_cache import KeyCache
from fastapi_keyauth.auth.misplaced_keys import MisplacedKeys
from fastapi_keyauth.auth.reservations import Reservations
from fastapi_keyauth.auth.rights import RightsCheck
from fastapi_keyauth.auth.sessions import SessionGate, SessionResolver, Sessions
from fastapi_keyauth.auth.tickets import Tickets
from fastapi_keyauth.auth.verifier import Verifier
from fastapi_keyauth.concurrency.event_loop import EventLoopBinding
from fastapi_keyauth.domain.ip_addresses import AddressResolver
from fastapi_keyauth.domain.tokens import TokenParser
from fastapi_keyauth.http.cors import CorsRules
from fastapi_keyauth.http.in_flight import InFlight
from fastapi_keyauth.http.problem_renderer import ProblemRenderer
from fastapi_keyauth.http.proxy_check import ProxyHeaderCheck
from fastapi_keyauth.http.request_handler import RequestHandler
from fastapi_keyauth.http.routers.callers import Callers, OwnersOf
from fastapi_keyauth.keys.audit import KeyAudit
from fastapi_keyauth.keys.authority import TRUSTED
from fastapi_keyauth.keys.importer import Importer
from fastapi_keyauth.keys.leaks import Leaks
from fastapi_keyauth.keys.lifetimes import Lifetimes
from fastapi_keyauth.keys.management import KeyManagement
from fastapi_keyauth.keys.outbox import Outbox
from fastapi_keyauth.keys.owners import Owners
from fastapi_keyauth.keys.queries import KeyQueries
from fastapi_keyauth.keys.retention import Pruner
from fastapi_keyauth.keys.service import Keys
from fastapi_keyauth.keys.turns import Turns
from fastapi_keyauth.keys.usage_closing import DayCloser
from fastapi_keyauth.keys.usage_reports import UsageReports
from fastapi_keyauth.limiter.factory import build_limiter
from fastapi_keyauth.settings.settings import KeyAuthSettings
from fastapi_keyauth.store import (
    Database,
    KeyStore,
    OwnerStore,
    PendingChangeStore,
    PruneStore,
    SessionStore,
    UsageDayStore,
    UsageReportStore,
    UsageStore,
)
from fastapi_keyauth.store.lifetimes import LifetimeStore
from fastapi_keyauth.store.usage_buffer import UsageRecorder
from fastapi_keyauth.telemetry.event_hook import EventDispatcher, OnEvent
from fastapi_keyauth.telemetry.observer import Observer
from fastapi_keyauth.telemetry.providers import Telemetry, build_metrics

Clock = Callable[[], float]
"""Seconds since 1970-01-01T00:00Z."""


class Parts:
    """Everything that one KeyAuth consists of. Building it opens nothing.

    A part is built after those it uses, so the order below is the order of dependence: telemetry, the database and the
    limiter, the life of keys, the checks of a request, and what HTTP adds to them.

    Args:
        settings: The settings.
        session_resolver: See ``KeyAuth``.
        owners_of: See ``KeyAuth``.
        clock: See ``KeyAuth``.
        on_event: See ``KeyAuth``.
        telemetry: See ``KeyAuth``.
    """

    def __init__(
        self,
        settings: KeyAuthSettings,
        session_resolver: SessionResolver | None,
        owners_of: OwnersOf | None,
        clock: Clock | None,
        on_event: OnEvent | None,
        telemetry: Telemetry | bool,
    ) -> None:
        self._clock = clock
        monotonic = time.monotonic if clock is None else clock
        self.event_loop = EventLoopBinding()

        self.metrics = build_metrics(settings.key_prefix, telemetry)
        self.event_dispatcher = None if on_event is None else EventDispatcher(on_event, self.metrics.counters)
        self.observer = Observer(self.metrics, self.event_dispatcher, self.now)

        self.database = Database(settings.database_url, observer=self.observer, event_loop=self.event_loop)
        self.store = store = KeyStore(self.database, settings, self.observer)
        prefix, hours_kept = settings.key_prefix, settings.usage_hours_kept
        usage_store = UsageStore(self.database, prefix, hours_kept)
        day_store = UsageDayStore(self.database, prefix)
        self.pruner = Pruner(PruneStore(self.database, prefix), hours_kept, self.now)
        self.limiter = build_limiter(settings, clock, self.observer)
        self.usage = UsageRecorder(usage_store, self.limiter.read_usage, time.time if clock is None else clock)
        self.day_closer = DayCloser(day_store, usage_store, self.limiter, self.now)

        self.hasher = Hasher(settings, self.metrics, self.event_loop)
        self.pending_changes = PendingChangeStore(self.database, settings.key_prefix)
        self.outbox = Outbox(self.limiter, self.pending_changes, settings.redis_url is not None, self.now)
        turns = Turns(store.tasks)
        self.management = KeyManagement(settings, store, self.hasher, self.outbox, turns, self.now)
        self.queries = KeyQueries(store, usage_store, self.usage, turns, hours_kept, self.now)
        report_store = UsageReportStore(self.database, prefix)
        self.usage_reports = UsageReports(report_store, day_store, store, self.usage, turns, settings.units, self.now)
        self.lifetimes = Lifetimes(
            settings.key_policy,
            LifetimeStore(self.database, settings),
            self.management,
            self.observer,
            self.event_dispatcher is not None,
            self.now,
            monotonic,
        )
        owner_store = OwnerStore(self.database, settings, self.observer)
        self.audit = KeyAudit(self.queries, owner_store, owners_of, self.now)
        importer = Importer(settings, store.imports, self.now)
        self.keys = Keys(self.management, self.queries, importer, self.audit, TRUSTED)
        self.owners = Owners(
            settings, owner_store, self.outbox, turns, self.limiter, self.day_closer, self.now, TRUSTED
        )
        parser = TokenParser(settings.key_prefix)
        self.leaks = Leaks(parser, store, self.hasher, self.management.record_leak, self.now)

        self.sessions = Sessions(SessionStore(self.database, settings.key_prefix), settings.session_ttl_s, self.now)
        session_gate = SessionGate(
            session_resolver or self.sessions.resolve,
            self.now,
            self.sessions.find_all if session_resolver is None else None,
        )
        key_cache = KeyCache(settings.cache_size, self.now, monotonic)
        tickets = Tickets.of(settings, self.limiter, self.metrics.counters)
        self.verifier = Verifier.of(settings, store, self.hasher, key_cache, self.metrics, monotonic, tickets)
        self.authenticator = Authenticator(
            verifier=self.verifier,
            limiter=self.limiter,
            sessions=session_gate,
            usage=self.usage,
            now=self.now,
            block_spares_valid_keys=settings.block_spares_valid_keys,
            counters=self.metrics.counters,
        )
        self.rights = RightsCheck.of(settings, self.authenticator, store, session_gate, self.now)
        self.in_flight = InFlight.of(settings, self.rights)
        store.lineage.on_break = partial(_call_all, key_cache.clear, self.rights.distrust_rows)
        self.database.on_recovery = partial(_call_all, key_cache.distrust_rows, self.rights.distrust_rows)
        self.reservations = Reservations(
            self.authenticator, store, self.usage, settings.units, settings.reservation_ttl_s, self.now
        )
        addresses = AddressResolver(settings.trusted_proxies, settings.ipv6_prefix_length)
        self.blocks = Blocks(self.limiter, addresses, self.event_loop)

        self.request_handler = RequestHandler(
            scope_key=f"fastapi_keyauth.{secrets.token_hex(4)}",
            credentials=CredentialReader.of(settings),
            misplaced_keys=MisplacedKeys(settings),
            addresses=addresses,
            authenticator=self.authenticator,
            cors=CorsRules(settings, store, self.now, monotonic),
            problems=ProblemRenderer(settings),
            rate_limit_headers=settings.rate_limit_headers,
            observer=self.observer,
            peers=ProxyHeaderCheck(bool(settings.trusted_proxies), settings.silenced_checks),
            event_loop=self.event_loop,
        )
        self.callers = Callers(
            self.authenticator,
            session_gate,
            session_resolver is None,
            owners_of,
            self.request_handler.get_context,
            settings.default_hourly_limit,
            store.limit_rules,
        )

    def now(self) -> datetime:
        """Return the current time, UTC."""
        return datetime.now(UTC) if self._clock is None else datetime.fromtimestamp(self._clock(), UTC)


def _call_all(*functions: Callable[[], None]) -> None:
    for function in functions:
        function()

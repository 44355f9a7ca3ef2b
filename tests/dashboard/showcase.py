"""An account with a year of history, for the pictures in the docs."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from fastapi_keyauth import CreatedKey, Limit
from tests.dashboard.site import Site, ago


def furnish(site: Site, owner: str) -> None:
    """Create keys in every state. `prod-api-server` has everything that a key's own page can show."""
    chance = random.Random(7)
    keys = site.auth.keys.acting_as(f"user:{owner}")

    def day_and_night(mean: float, hours: int, cap: int) -> dict[int, tuple[int, int]]:
        now = datetime.now(UTC).hour
        counts = {}
        for back in range(hours):
            wave = 1 + 0.8 * math.sin(((now - back) % 24 - 8) / 24 * 2 * math.pi)
            wanted = int(mean * wave * chance.uniform(0.75, 1.25))
            counts[back] = (min(wanted, cap), max(0, wanted - cap))
        return counts

    def made(name: str, days: float, scopes: list[str], used: datetime | None, **fields: Any) -> CreatedKey:
        created = site.run(keys.create(owner, name, scopes, **fields))
        site.set_times(created.key.id, created_at=ago(days=days), last_used_at=used)
        return created

    now = datetime.now(UTC)
    usage: dict[str, dict[int, tuple[int, int]]] = {}
    made("prototype-2024", 410, ["*"], ago(days=203))
    old = made("contractor-mobile-app", 260, ["completions:write", "files:read"], ago(days=34))
    site.run(keys.revoke(old.key.id, "The contract has ended"))
    off = made("nightly-report", 190, ["files:read"], ago(days=2), environment="staging")
    site.run(keys.update(off.key.id, enabled=False, reason="Sends the same report twice"))
    lapsed = made("load-test-october", 60, ["completions:write"], ago(days=21), environment="test")
    site.set_times(lapsed.key.id, expires_at=ago(days=20))
    worker = made(
        "staging-worker", 45, ["completions:write", "files:read", "files:write"], ago(minutes=42), environment="staging"
    )
    usage[worker.key.id] = day_and_night(34, 720, 1000)
    ci = made(
        "ci-integration-tests",
        27,
        ["completions:write"],
        ago(hours=5),
        environment="test",
        expires_at=now + timedelta(days=3, hours=4),
    )
    usage[ci.key.id] = {5: (310, 0), 11: (288, 0), 29: (301, 0), 53: (290, 0)}
    shop = made(
        "web-shop",
        12,
        ["completions:write"],
        ago(seconds=20),
        hourly_limit=400,
        allowed_origins=["https://shop.example"],
    )
    usage[shop.key.id] = day_and_night(300, 720, 400)
    made("local-dev-alice", 0.2, ["*"], None, expires_at=now + timedelta(days=30))
    server = made(
        "prod-api-server",
        88,
        ["completions:write", "files:read", "keys:read"],
        ago(minutes=3),
        expires_at=now + timedelta(days=277),
        limits=[Limit(name="hour", limit=1000, per="hour"), Limit(name="burst", limit=300, per="minute")],
        allowed_ips=["127.0.0.1", "203.0.113.0/24"],
        metadata={"team": "platform", "ticket": "OPS-1482"},
    )
    usage[server.key.id] = day_and_night(560, 720, 1000)
    site.add_usage_of_keys(usage)
    site.run(keys.update(server.key.id, scopes=["completions:write", "files:read"], reason="Lists no keys any more"))
    site.run(keys.rotate(server.key.id, timedelta(days=1), "Every quarter"))
    limits = [Limit(name="day", limit=20_000, per="day"), Limit(name="month", limit=500_000, per="month")]
    site.run(site.auth.owners.set(owner, limits=limits, name="Parrot Shop"))
    with httpx.Client(headers={"api-key": server.token}) as client:
        for _ in range(263):
            client.get(f"{site.url}/v1/models").raise_for_status()
    site.use_secret(server.key.id, server.token, now + timedelta(seconds=2))
    site.set_times(server.key.id, last_used_at=ago(minutes=3))

"""Section 8: defaults, environment variables, and invalid settings."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import pytest

from fastapi_keyauth import KeyAuth, KeyAuthSettings, SetupError
from tests.helpers.contract_app import build_app
from tests.helpers.stage import MakeAuth, MakeClient, OpenScene, code_of

SOME_ERROR: type[Exception] = Exception  # which one a bad start raises is not promised
PASSWORD = "correct-horse-battery"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove KEYAUTH_ variables and .env files other than the test's own."""
    monkeypatch.chdir(tmp_path)
    for name in KeyAuthSettings.model_fields:
        monkeypatch.delenv(f"KEYAUTH_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("header_name", "api-key"),
        ("key_prefix", "ka"),
        ("accept_bearer_keys", True),
        ("default_environment", "live"),
        ("default_hourly_limit", 1000),
        ("rate_limit_algorithm", "fixed_window"),
        ("rate_limit_headers", "ietf"),
        ("block_after_failures", 10),
        ("failure_window_s", 300),
        ("block_for_s", 300),
        ("block_spares_valid_keys", False),
        ("ipv6_prefix_length", 64),
        ("max_staleness_s", 1),
    ],
)
def test_a_setting_has_the_promised_default(name: str, value: Any) -> None:
    assert getattr(KeyAuthSettings(), name) == value


@pytest.mark.parametrize(
    "name",
    [
        "database_url",
        "redis_url",
        "realm",
        "trusted_proxies",
        "allowed_origins",
        "scopes",
        "max_keys_per_owner",
        "session_ttl_s",
        "argon2_time_cost",
        "argon2_memory_kib",
        "argon2_parallelism",
        "max_concurrent_hashes",
        "cache_size",
        "ticket_key",
        "default_key_ttl_s",
        "max_key_ttl_s",
        "disable_unused_after_days",
        "key_policy_applies_to",
        "on_limiter_outage",
        "redis_timeout_s",
    ],
)
def test_a_setting_exists(name: str) -> None:
    assert hasattr(KeyAuthSettings(), name)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("REALM", "Acme", "Acme"),
        ("HEADER_NAME", "x-acme-key", "x-acme-key"),
        ("KEY_PREFIX", "acme", "acme"),
        ("ACCEPT_BEARER_KEYS", "false", False),
        ("DEFAULT_HOURLY_LIMIT", "25", 25),
        ("RATE_LIMIT_ALGORITHM", "sliding_window", "sliding_window"),
        ("RATE_LIMIT_HEADERS", "both", "both"),
        ("BLOCK_AFTER_FAILURES", "3", 3),
        ("BLOCK_SPARES_VALID_KEYS", "true", True),
        ("IPV6_PREFIX_LENGTH", "48", 48),
        ("ON_LIMITER_OUTAGE", "deny", "deny"),
        ("SCOPES", '{"items:read": "Read items."}', {"items:read": "Read items."}),
    ],
)
def test_a_setting_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, value: Any
) -> None:
    monkeypatch.setenv(f"KEYAUTH_{name}", text)
    assert getattr(KeyAuthSettings(), name.lower()) == value


@pytest.mark.parametrize("name", ["trusted_proxies", "allowed_origins"])
def test_a_list_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    entries = {
        "trusted_proxies": ["10.0.0.0/8", "fd00::/8"],
        "allowed_origins": ["https://app.example"],
    }[name]
    monkeypatch.setenv(f"KEYAUTH_{name.upper()}", json.dumps(entries))
    assert [str(entry) for entry in getattr(KeyAuthSettings(), name)] == entries


def test_a_setting_is_read_from_a_dotenv_file(tmp_path: Path) -> None:
    tmp_path.joinpath(".env").write_text("KEYAUTH_REALM=from-file\nOTHER=ignored\n")
    assert KeyAuthSettings().realm == "from-file"


def test_an_argument_outranks_the_environment_and_that_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.joinpath(".env").write_text("KEYAUTH_REALM=file\n")
    monkeypatch.setenv("KEYAUTH_REALM", "environment")
    assert KeyAuthSettings().realm == "environment"
    assert KeyAuthSettings(realm="argument").realm == "argument"


async def test_without_settings_they_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_client: MakeClient
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path}/keys.db"
    monkeypatch.setenv("KEYAUTH_DATABASE_URL", url)
    monkeypatch.setenv("KEYAUTH_REALM", "env")
    auth = KeyAuth()
    app = build_app(auth)
    async with auth, make_client(app) as client:
        token = (await auth.keys.create(owner_id="o", name="n")).token
        assert (await client.get("/models", headers={"api-key": token})).status_code == 200
        answer = await client.get("/models")
        assert answer.headers.get_list("www-authenticate")[0] == 'api-key realm="env"'
    later = KeyAuth()
    app = build_app(later)
    async with later, make_client(app) as client:
        assert (await client.get("/models", headers={"api-key": token})).status_code == 200


BAD_SETTINGS: list[tuple[str, Any]] = [
    ("database_url", "nonsense"),
    ("redis_url", "http://localhost:6379"),
    ("redis_url", "redis://localhost:6379/0?protocol=3"),
    ("header_name", "api key"),
    ("header_name", ""),
    ("header_name", "api-key\r\nx"),
    ("key_prefix", ""),
    ("key_prefix", "k a"),
    ("realm", "a\r\nset-cookie: b"),
    ("default_environment", "LIVE"),
    ("default_environment", "a" * 17),
    ("default_environment", ""),
    ("default_hourly_limit", -5),
    ("default_hourly_limit", "many"),
    ("rate_limit_algorithm", "leaky_bucket"),
    ("rate_limit_headers", "some"),
    ("block_after_failures", -1),
    ("failure_window_s", -1),
    ("block_for_s", -1),
    ("ipv6_prefix_length", 129),
    ("ipv6_prefix_length", -1),
    ("trusted_proxies", ["proxy.internal"]),
    ("trusted_proxies", ["10.0.0.0/33"]),
    ("allowed_origins", ["https://app.example/path"]),
    ("allowed_origins", ["app.example"]),
    ("max_keys_per_owner", -1),
    ("session_ttl_s", -1),
    ("argon2_time_cost", 0),
    ("argon2_memory_kib", 0),
    ("argon2_parallelism", 0),
    ("max_concurrent_hashes", -1),
    ("cache_size", -1),
    ("ticket_key", "too short"),
    ("default_key_ttl_s", 0),
    ("max_key_ttl_s", 0),
    ("disable_unused_after_days", 0),
    ("key_policy_applies_to", "some"),
    ("max_staleness_s", -1),
    ("on_limiter_outage", "allow"),
    ("redis_timeout_s", 0),
    ("redis_timeout_s", -1),
]


@pytest.mark.parametrize(("name", "value"), BAD_SETTINGS)
async def test_an_invalid_setting_fails_at_start(name: str, value: Any) -> None:
    with pytest.raises(SOME_ERROR) as failure:
        async with KeyAuth(KeyAuthSettings(**{name: value})):
            pass
    said = str(failure.value).lower()
    assert " " in said
    assert any(word in said for word in name.split("_")), said


def test_an_invalid_value_in_the_environment_fails_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYAUTH_BLOCK_AFTER_FAILURES", "ten")
    with pytest.raises(ValueError, match="block_after_failures"):
        KeyAuthSettings()


@pytest.mark.parametrize(
    "urls",
    [
        {"database_url": f"postgresql+asyncpg://user:{PASSWORD}@db.internal/keys"},
        {"redis_url": f"redis://:{PASSWORD}@redis.internal:6379/0"},
        {"redis_url": f"rediss://user:{PASSWORD}@redis.internal:6379/0"},
        {"redis_url": f"redis+sentinel://user@corp:{PASSWORD}@redis.internal:26379/mymaster"},
    ],
)
def test_the_password_of_a_url_is_never_shown(urls: dict[str, Any]) -> None:
    settings = KeyAuthSettings(**urls)
    for text in (repr(settings), str(settings), f"{settings!r}", repr(KeyAuth(settings))):
        assert PASSWORD not in text


@pytest.mark.parametrize(
    "settings",
    [
        {"redis_url": f"http://user:{PASSWORD}@redis.internal"},
        {"database_url": f"nonsense://user:{PASSWORD}@db.internal/keys"},
        {"redis_url": f"redis://:{PASSWORD}@redis.internal:not-a-port/0"},
        {"redis_url": f"redis://:{PASSWORD}@redis.internal/0", "block_for_s": -1},
    ],
)
async def test_a_complaint_does_not_show_the_password(settings: dict[str, Any]) -> None:
    with pytest.raises(SOME_ERROR) as failure:
        async with KeyAuth(KeyAuthSettings(**settings)):
            pass
    error: BaseException | None = failure.value
    while error is not None:
        assert PASSWORD not in str(error)
        error = error.__cause__


async def warnings_at_start(caplog: pytest.LogCaptureFixture, make_auth: MakeAuth, **settings: Any) -> str:
    """Return the warnings of a start with these settings, from the log and the warnings module."""
    caplog.set_level(logging.WARNING)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with make_auth(**settings):
            pass
    said = [str(warning.message) for warning in caught] + [r.getMessage() for r in caplog.records]
    return "\n".join(said).lower()


@pytest.mark.parametrize("everyone", ["0.0.0.0/0", "::/0"])
async def test_trusting_every_proxy_warns(caplog: pytest.LogCaptureFixture, make_auth: MakeAuth, everyone: str) -> None:
    assert "prox" in await warnings_at_start(caplog, make_auth, trusted_proxies=[everyone])


async def test_weak_argon2_settings_are_accepted_with_a_warning(
    caplog: pytest.LogCaptureFixture, make_auth: MakeAuth
) -> None:
    weak = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "argon2_parallelism": 1}
    assert "argon2" in await warnings_at_start(caplog, make_auth, **weak)


async def test_keys_work_at_any_cost_that_argon2_takes(open_scene: OpenScene) -> None:
    async with open_scene(argon2_time_cost=2, argon2_memory_kib=64, argon2_parallelism=4) as scene:
        key = await scene.key()
        assert await scene.spend(key.token) == [200]
        assert code_of(await scene.get(token=key.token + "0")) == "malformed_api_key"


class _House(KeyAuthSettings):
    """Settings of an application that declares some again, for other defaults."""

    database_url: str = "postgresql://ada:secret@db.example/house"
    key_prefix: str = "house"
    block_after_failures: int = 5


def test_settings_that_a_subclass_declares_again_are_checked_and_masked() -> None:
    settings = _House()
    assert settings.database_url == "postgresql+asyncpg://ada:secret@db.example/house"
    assert "secret" not in repr(settings)
    wrong: dict[str, Any] = {"database_url": "mysql://x", "key_prefix": "ks", "block_after_failures": 0}
    for name, value in wrong.items():
        with pytest.raises(SetupError, match=name):
            _House(**{name: value})

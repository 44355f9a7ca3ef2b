"""All settings, each with its unit and the reason for its default."""

from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, Field, PrivateAttr, TypeAdapter, ValidationError, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from fastapi_keyauth.domain.lifetimes import KeyPolicy
from fastapi_keyauth.domain.limits import check_unique, check_units, hour_limit
from fastapi_keyauth.domain.text import explain
from fastapi_keyauth.errors import InvalidField, SetupError
from fastapi_keyauth.settings import values
from fastapi_keyauth.settings.urls import MaskedUrl

OWASP_MEMORY_KIB = 19456
OWASP_TIME_COST = 2


class KeyAuthSettings(BaseSettings):
    """Settings of one ``KeyAuth``, from keyword arguments, ``KEYAUTH_*`` variables or a ``.env`` file.

    Lists may be written as JSON or with commas.

    Raises:
        SetupError: If a value is invalid. Its one sentence never contains the value.
    """

    model_config = SettingsConfigDict(
        env_prefix="KEYAUTH_", env_file=".env", extra="ignore", frozen=True, hide_input_in_errors=True
    )

    database_url: values.DatabaseUrl = MaskedUrl("sqlite+aiosqlite:///./keyauth.db")
    """SQLAlchemy URL: ``sqlite+aiosqlite`` or ``postgresql+asyncpg``. ``postgresql://`` means the latter."""

    redis_url: values.RedisUrl = None
    """URL of one server, of Sentinels or of a cluster. None: limits are counted in this process only."""

    header_name: values.HeaderName = "api-key"
    """Name of the header that carries an API token."""

    key_prefix: values.KeyPrefix = "ka"
    """First part of every API token. Choose your own, so that leaked tokens are recognized as yours."""

    imported_prefixes: values.ImportedPrefixes = ()
    """Prefixes of the tokens of imported keys, such as ``kg_``. With ``*``, every value of the header is looked up. If
    empty, only tokens of our own form are."""

    imported_until: AwareDatetime | None = None
    """Time (with a zone) from which all imported secrets are refused as expired. Such a refusal is not a failed
    attempt. None: no common end. Added in 0.2."""

    realm: values.Realm = "api"
    """The realm named in ``WWW-Authenticate`` (RFC 9110 section 11.5)."""

    accept_bearer_keys: bool = True
    """Whether API tokens are also accepted as ``Authorization: Bearer <API token>``."""

    default_environment: str = Field("live", pattern=r"^[a-z0-9]{1,16}$")
    """Environment of a key that is created without one."""

    default_hourly_limit: values.HourlyLimit = 1000
    """Hourly limit of a key without limits of its own, in requests. None: no limit."""

    default_limits: values.Limits = ()
    """Limits of a key without limits of its own, in addition to ``default_hourly_limit``. As JSON: a list of objects
    with name, limit, per, unit and algorithm. Added in 0.2."""

    default_owner_limits: values.Limits = ()
    """Limits of an owner without limits of its own, shared by all its keys. Added in 0.2."""

    units: values.Units = ()
    """Units besides ``requests`` that limits and costs may be counted in, such as ``tokens``. Added in 0.2."""

    reservation_ttl_s: int = Field(3600, ge=1, le=86_400)
    """Seconds within which a reservation can be settled. Later, it stays charged in full. Added in 0.2."""

    rate_limit_algorithm: Literal["fixed_window", "sliding_window"] = "fixed_window"
    """``fixed_window``: the clock hour in UTC. ``sliding_window``: smooths the boundary between two hours."""

    rate_limit_headers: Literal["ietf", "legacy", "both", "none"] = "ietf"
    """``ietf``: ``RateLimit`` and ``RateLimit-Policy``. ``legacy``: ``X-RateLimit-*``. Or both, or neither."""

    block_after_failures: int = Field(10, ge=1, le=1_000_000)
    """Number of failed attempts within ``failure_window_s`` that block an address."""

    failure_window_s: int = Field(300, ge=1, le=86_400)
    """Seconds within which failed attempts are counted together, from the first one."""

    block_for_s: int = Field(300, ge=1, le=86_400)
    """Seconds for which an address stays blocked."""

    block_spares_valid_keys: bool = False
    """Whether valid keys are admitted from a blocked address. Costs a verification for each such request."""

    ipv6_prefix_length: int = Field(64, ge=32, le=128)
    """Bits of an IPv6 address that count as one client: providers assign a /64 to one site (RFC 6177, RIPE-690)."""

    trusted_proxies: values.Proxies = ()
    """Networks (CIDR) of the proxies whose ``X-Forwarded-For`` is trusted. Default: no proxy."""

    allowed_origins: values.AllowedOrigins = ()
    """Browser origins that are allowed in addition to those in the lists of keys; ``*``: any. A key with a list of its
    own still refuses all others."""

    scopes: values.Scopes = Field(default_factory=dict)
    """Scopes of the application: name to description. If empty, any name can be granted."""

    max_keys_per_owner: int = Field(100, ge=1, le=1_000_000)
    """Maximum number of keys of one owner, enforced by the management routes. Revoked keys do not count."""

    session_ttl_s: int = Field(43_200, ge=1, le=31_536_000)
    """Seconds that a session of ``auth.sessions`` lasts: 12 hours (NIST SP 800-63B, AAL2)."""

    argon2_time_cost: int = Field(OWASP_TIME_COST, ge=1)
    """Argon2id passes. OWASP Password Storage Cheat Sheet, minimum: 19 MiB, t=2, p=1."""

    argon2_memory_kib: int = Field(OWASP_MEMORY_KIB, ge=8)
    """Argon2id memory in KiB, for each concurrent hash."""

    argon2_parallelism: int = Field(1, ge=1)
    """Argon2id lanes."""

    max_concurrent_hashes: int = Field(2, ge=1, le=64)
    """Maximum number of concurrent hashes. Their memory is at most this number times ``argon2_memory_kib``."""

    ticket_key: values.TicketKeys = ()
    """With Redis: key of the verification tickets by which workers spare each other Argon2, at least 32 characters such
    as ``secrets.token_urlsafe(32)``. Several, separated by commas, are accepted while it is replaced: the first one
    signs. If empty, each worker verifies each secret itself. Added in 0.2."""

    cache_size: int = Field(10_000, ge=1, le=10_000_000)
    """Maximum number of verified keys that a worker caches. The least recently used is evicted first."""

    max_staleness_s: float = Field(1.0, ge=0, le=3600)
    """Without Redis: seconds after which a cached row is read again, since another process may have changed it."""

    usage_hours_kept: int = Field(192, ge=24, le=87_600)
    """Hours for which usage is kept by the hour. Closed days are kept permanently. Added in 0.2."""

    on_limiter_outage: Literal["local", "deny"] = "local"
    """Policy while Redis is unavailable. ``local``: each worker enforces limits on its own and reads every key's row.
    ``deny``: 503."""

    end_in_flight_within_s: values.EndWithin = 1.0
    """Seconds within which requests that are running end after their key, owner or session lost the right. None: they
    go on. Added in 0.2."""

    max_in_flight_unchecked_s: float = Field(30.0, ge=0.1, le=86_400)
    """With ``on_limiter_outage`` ``deny``: seconds after which a request ends that is running and cannot be checked.
    Added in 0.2."""

    default_key_ttl_s: values.KeyTtl = None
    """Lifetime in seconds of a key that is created without an expiry. None: ``max_key_ttl_s``. Added in 0.2."""

    max_key_ttl_s: values.KeyTtl = None
    """Maximum lifetime of a key in seconds, from its creation. None: no maximum. Added in 0.2."""

    disable_unused_after_days: values.UnusedDays = None
    """Days after which a key that was not used is disabled, from its last use, creation or import, whichever is
    latest. None: never. Added in 0.2."""

    key_policy_applies_to: Literal["new", "all"] = "new"
    """Keys that the three settings above apply to. ``new``: those that are created while one of them is set. ``all``:
    also the others, which end ``max_key_ttl_s`` after their creation. Added in 0.2."""

    silenced_checks: values.SilencedChecks = ()
    """Codes of startup warnings that are not logged, such as ``weak_argon2``. Added in 0.2."""

    redis_timeout_s: float = Field(0.5, gt=0, le=60)
    """Seconds that a request waits for Redis before Redis counts as unavailable."""

    lease_ms: int = Field(100, ge=0, le=1000)
    """With Redis: milliseconds for which a worker may take units of a busy key's limits in advance, and admit its
    requests without asking Redis. Whatever takes rights away is answered that much later. 0: never. The same in all
    processes that use one Redis. Added in 0.2."""

    _in_dotenv: frozenset[str] = PrivateAttr(frozenset())

    def __init__(self, **given: Any) -> None:
        known = type(self).model_fields
        unknown = [name for name in given if not name.startswith("_") and name not in known]
        if unknown:
            raise SetupError(f"A setting named {unknown[0]!r} does not exist.")
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise SetupError(_sentence(error)) from None
        except ValueError as error:  # pydantic-settings: a variable that cannot be decoded
            raise SetupError(f"A setting cannot be read: {type(error).__name__} in the environment.") from None
        env_file = given.get("_env_file", type(self).model_config.get("env_file"))
        self._in_dotenv = frozenset(DotEnvSettingsSource(type(self), env_file).env_vars)

    @model_validator(mode="after")
    def _check_declared_again(self) -> "KeyAuthSettings":
        """Check settings that a subclass declares again, usually to give another default, as they are checked here."""
        for name, here in KeyAuthSettings.model_fields.items():
            there = type(self).model_fields[name]
            if (there.annotation, there.metadata) != (here.annotation, here.metadata):
                kind: Any = Annotated[here.annotation, *here.metadata]
                try:
                    value = TypeAdapter(kind).validate_python(getattr(self, name))
                except ValidationError as error:
                    raise ValueError(f"{name} is invalid: {explain(error.errors(include_input=False)[0])}") from None
                object.__setattr__(self, name, value)  # it is frozen
        return self

    @model_validator(mode="after")
    def _check_limits(self) -> "KeyAuthSettings":
        hourly = [] if self.default_hourly_limit is None else [hour_limit(self.default_hourly_limit)]
        for name, limits in (
            ("default_limits", [*hourly, *self.default_limits]),
            ("default_owner_limits", list(self.default_owner_limits)),
        ):
            try:
                check_unique(limits)
                check_units(limits, self.units, name)
            except InvalidField as error:
                raise ValueError(f"{name} is invalid: {error.message}") from None
            except ValueError as error:
                beside = ", and default_hourly_limit is the limit named hour" if name == "default_limits" else ""
                raise ValueError(f"{name} is invalid: {error}{beside}") from None
        return self

    @model_validator(mode="after")
    def _check_argon2(self) -> "KeyAuthSettings":
        if self.argon2_memory_kib < 8 * self.argon2_parallelism:
            raise ValueError("argon2_memory_kib must be at least 8 times argon2_parallelism")
        if max(self.argon2_time_cost, self.argon2_memory_kib) > 2**32 - 1 or self.argon2_parallelism > 2**24 - 1:
            raise ValueError("argon2_time_cost, argon2_memory_kib or argon2_parallelism is above Argon2's maximum")
        return self

    @model_validator(mode="after")
    def _check_key_ttl(self) -> "KeyAuthSettings":
        if self.default_key_ttl_s and self.max_key_ttl_s and self.default_key_ttl_s > self.max_key_ttl_s:
            raise ValueError("default_key_ttl_s must be at most max_key_ttl_s")
        return self

    @property
    def key_policy(self) -> KeyPolicy:
        """The policy for the lifetime of keys. Added in 0.2."""

        def span(value: int | None, unit_s: int = 1) -> timedelta | None:
            return None if value is None else timedelta(seconds=value * unit_s)

        return KeyPolicy(
            span(self.default_key_ttl_s),
            span(self.max_key_ttl_s),
            span(self.disable_unused_after_days, 86_400),
            self.key_policy_applies_to == "all",
        )

    @property
    def in_dotenv(self) -> frozenset[str]:
        """Names of the variables in the ``.env`` file. Added in 0.2."""
        return self._in_dotenv

    def dangers(self) -> list[str]:
        """Return a sentence for each risky setting. They are logged as warnings when the application starts."""
        from fastapi_keyauth.settings.checks import run_checks  # noqa: PLC0415  # the checks import the settings

        return [warning.sentence for warning in run_checks(self)]


def _sentence(error: ValidationError) -> str:
    """Return the first problem of a validation error as one sentence, without the value."""
    first = error.errors(include_input=False, include_url=False)[0]
    message = explain(first)
    message = message[:1].lower() + message[1:]
    if not first["loc"]:
        return f"Setting {message}."
    name = str(first["loc"][0])
    return f"Setting {name} (KEYAUTH_{name.upper()}) is invalid: {message}."

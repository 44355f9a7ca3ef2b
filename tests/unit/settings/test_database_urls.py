"""Database URLs: accepted forms, rejected parameters, and masked credentials."""

import pytest
from sqlalchemy.engine import make_url

from fastapi_keyauth import KeyAuthSettings, SetupError
from fastapi_keyauth.settings.database_urls import check_database_url
from fastapi_keyauth.settings.urls import MaskedUrl, masked_url

SECRET = "S3cr3t"


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("sqlite:///./keys.db", "sqlite+aiosqlite:///./keys.db"),
        ("postgres://app@db/x", "postgresql+asyncpg://app@db/x"),
        ("postgresql://app:a%40b@db:6432/x", "postgresql+asyncpg://app:a%40b@db:6432/x"),
        ("postgresql://app:a/b#c@db/x", "postgresql+asyncpg://app:a%2Fb#c@db/x"),
        ("postgresql://db/x?sslmode=require", "postgresql+asyncpg://db/x?sslmode=require"),
        ("postgresql://db/x?ssl=require", "postgresql+asyncpg://db/x?sslmode=require"),
        ("postgresql://db/x?channel_binding=prefer&client_encoding=utf8", "postgresql+asyncpg://db/x"),
        ("postgresql://db/x?connection_limit=1&pgbouncer=true", "postgresql+asyncpg://db/x?pool_size=1&pgbouncer=true"),
        ("postgresql://u:p@a:1,b/x", "postgresql+asyncpg://u:p@/x?host=a:1&host=b:5432"),
        (
            "postgresql://a,[::1]:6/x?target_session_attrs=primary",
            "postgresql+asyncpg:///x?host=a:5432&host=[::1]:6&target_session_attrs=primary",
        ),
    ],
)
def test_urls_are_accepted_as_services_print_them(given: str, taken: str) -> None:
    assert make_url(check_database_url(given)) == make_url(taken)
    assert check_database_url(check_database_url(given)) == check_database_url(given)


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://db/x?channel_binding=require", "channel_binding"),
        ("postgresql://db/x?gssencmode=require", "gssencmode"),
        ("postgresql://db/x?client_encoding=latin1", "client_encoding"),
        ("postgresql://db/x?keepalives_idle=5", "keepalives_idle"),
        ("postgresql://db/x?no_such_parameter=1", "no_such_parameter"),
        ("postgresql://db/x?sslmode=on", "verify-full"),
        ("postgresql://db/x?target_session_attrs=master", "target_session_attrs"),
        ("postgresql://db/x?connect_timeout=soon", "connect_timeout"),
        ("postgresql://db/x?pool_size=0", "pool_size"),
        ("postgresql://db/x?pgbouncer=perhaps", "pgbouncer"),
        ("postgresql://db/x?schema=a,b", "schema"),
        ("postgresql://db/x?schema=a&options=-cjit=off", "options"),
        ("postgresql://a:x,b/x", "hosts"),
        ("postgresql://db:70000/x", "database URL"),
        ("postgresql://db:port/x", "database URL"),
        ("mysql://db/x", "sqlite"),
        ("db", "database URL"),
    ],
)
def test_parameters_without_effect_are_rejected_by_name(url: str, named: str) -> None:
    with pytest.raises(SetupError, match=named) as refused:
        KeyAuthSettings(_env_file=None, database_url=url)
    assert str(refused.value).count(". ") == 0


@pytest.mark.parametrize(
    "password", [f"a@{SECRET}/b#9", f"{SECRET}/b", f"{SECRET}#b", f"a?{SECRET}@b", f"a,b@{SECRET}"]
)
@pytest.mark.parametrize("scheme", ["postgresql://app", "redis://"])
def test_no_part_of_a_password_is_printed(scheme: str, password: str) -> None:
    url = f"{scheme}:{password}@db.example:5432/0"
    assert masked_url(url) == f"{scheme.partition('://')[0]}://***@db.example:5432/0"
    assert SECRET not in repr(MaskedUrl(url))
    assert SECRET.lower() not in printed_at_start(url).lower()


def printed_at_start(url: str) -> str:
    try:
        return repr(KeyAuthSettings(_env_file=None, database_url=url))
    except SetupError as error:
        return str(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h/0?password=x&db=1", "redis://h/0?password=***&db=1"),
        ("postgresql://u@h/x?sslpassword=y", "postgresql://***@h/x?sslpassword=***"),
        ("sqlite+aiosqlite:///keys.db", "sqlite+aiosqlite:///keys.db"),
    ],
)
def test_masks_credentials_and_nothing_else(url: str, shown: str) -> None:
    assert masked_url(url) == shown

"""The forms of `redis_url`: parsing, errors that stop the start, and masked credentials."""

import pytest

from fastapi_keyauth import KeyAuth, KeyAuthSettings, SetupError
from fastapi_keyauth.limiter.redis.clients import ClientFactory
from fastapi_keyauth.settings.redis_urls import parse_redis_url


@pytest.mark.parametrize("url", ["redis://h", "rediss://u:p@h:1/2?ssl_ca_certs=x", "unix:///run/redis.sock?db=1"])
def test_the_url_of_one_server_is_left_as_it_is(url: str) -> None:
    assert (parse_redis_url(url).kind, parse_redis_url(url).url) == ("single", url)


def test_a_sentinel_url_names_sentinels_service_and_database() -> None:
    found = parse_redis_url("redis+sentinel://ann:p%40w@one:1,two,[::1]:3/my%20master/4?health_check_interval=5")
    assert found.kind == "sentinel"
    assert found.addresses == (("one", 1), ("two", 26379), ("::1", 3))
    assert found.service == "my master"
    assert found.url == "redis://ann:p%40w@one:1/4?health_check_interval=5"


def test_a_cluster_url_names_nodes() -> None:
    found = parse_redis_url("rediss+cluster://:pw@[fd00::1],two:2/?ssl_ca_certs=/ca.pem")
    assert (found.kind, found.addresses) == ("cluster", (("fd00::1", 6379), ("two", 2)))
    assert found.url == "rediss://:pw@[fd00::1]:6379/0?ssl_ca_certs=%2Fca.pem"


def test_the_sentinels_have_credentials_of_their_own() -> None:
    found = parse_redis_url("redis+sentinel://u:p@h/m?sentinel_username=s&sentinel_password=q%26")
    assert found.sentinel_options == {"sentinel_username": "s", "sentinel_password": "q&"}
    assert "sentinel" not in found.url


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://hunter2@h", "must start with redis://"),
        ("redis+sentinel:h/m", "must start with redis://"),
        ("redis+sentinel://hunter2@h:1", "must name the service"),
        ("redis+sentinel://hunter2@h:1/", "must name the service"),
        ("redis+sentinel://h/m/hunter2", "must end with the service"),
        ("redis+sentinel://h/m/0/hunter2", "must end with the service"),
        ("redis+sentinel:///m", "must name hosts"),
        ("redis+sentinel://h,/m", "must name hosts"),
        ("redis+sentinel://h:0/m", "must name hosts"),
        ("redis+sentinel://h:65536/m", "must name hosts"),
        ("redis+sentinel://u:hunter2/x@h:1/m", "must name hosts"),
        ("redis+sentinel://u:hunter2#x@h:1/m", "must write # as %23"),
        ("redis+sentinel://h/m?sentinel_pasword=hunter2", "must have no sentinel_ options but"),
        ("redis+cluster://h?sentinel_password=hunter2", "must have no sentinel_ options but"),
        ("redis+cluster://h/1", "must not choose a database"),
        ("redis+cluster://h?protocol=3", "must not choose a protocol"),
        ("redis://h?protocol=3", "must not choose a protocol"),
    ],
)
def test_an_invalid_url_is_rejected_in_a_sentence_that_does_not_contain_it(url: str, said: str) -> None:
    with pytest.raises(SetupError, match=r"^Setting redis_url \(KEYAUTH_REDIS_URL\) is invalid: .+\.$") as failure:
        KeyAuthSettings(_env_file=None, redis_url=url)
    assert said in str(failure.value)
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://:hunter2@h:1,k:2/m/0?sentinel_password=hunter2&x=y@z",
        "redis+cluster://ann:hunter2@h:1,k:2?ssl_password=hunter2",
        "redis+cluster://ann:hunter2@h:1",
    ],
)
def test_no_password_is_shown(url: str) -> None:
    settings = KeyAuthSettings(_env_file=None, redis_url=url)
    assert "hunter2" not in repr(settings) + repr(parse_redis_url(url))
    assert settings.redis_url == url


@pytest.mark.parametrize(
    "url", ["redis://h?hunter2=1", "redis+cluster://h?hunter2=1", "redis+sentinel://h/m?db=hunter2"]
)
def test_an_option_that_redis_py_does_not_know_stops_the_start(url: str) -> None:
    with pytest.raises(SetupError, match="is invalid"):
        KeyAuth(KeyAuthSettings(_env_file=None, redis_url=url))


@pytest.mark.parametrize(
    ("scheme", "kinds"),
    [
        ("redis", ["Connection", "SentinelManagedConnection"]),
        ("rediss", ["SSLConnection", "SentinelManagedSSLConnection"]),
    ],
)
async def test_tls_holds_for_servers_and_sentinels(scheme: str, kinds: list[str]) -> None:
    clients = ClientFactory(parse_redis_url(f"{scheme}+sentinel://u:p@h:1/m"), 1.0)
    client = clients.create()
    pool = client.connection_pool
    sentinel = pool.sentinel_manager.sentinels[0].connection_pool  # type: ignore[attr-defined]  # of the pool that it is
    assert [each.connection_class.__name__ for each in (sentinel, pool)] == kinds
    assert sentinel.connection_kwargs["password"] is None
    await client.aclose()
    await clients.close()


@pytest.mark.parametrize("password", ["hunter2/x", "hunter2?x", "hunter2#x", "a@hunter2/c#9"])
@pytest.mark.parametrize("scheme", ["redis", "rediss", "redis+sentinel", "redis+cluster"])
def test_a_password_that_is_not_percent_encoded_is_rejected_and_never_shown_as_a_host(
    scheme: str, password: str
) -> None:
    with pytest.raises(ValueError, match="as %") as failure:
        parse_redis_url(f"{scheme}://:{password}@redis.example/0")
    assert "hunter2" not in str(failure.value)

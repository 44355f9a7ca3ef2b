"""The forms of ``redis_url``: one server, servers that Sentinels monitor, or a cluster.

| form | what it names |
| --- | --- |
| ``redis://[user:password@]host[:6379][/database]`` | one server |
| ``unix://[user:password@]/path[?db=database]`` | one server on this host |
| ``redis+sentinel://[user:password@]host[:26379],.../service[/database]`` | Sentinels, and their service |
| ``redis+cluster://[user:password@]host[:6379],...`` | some nodes of a cluster, which name the others |

With ``rediss`` in place of ``redis``, all connections use TLS. User and password are those of the servers; those of the
Sentinels are the options ``sentinel_username`` and ``sentinel_password``. All other options are those of redis-py.
docket, Prefect, RedisVL and Redis-Sentinel-Url use the same form for Sentinels, so all can share one variable.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlencode

Address = tuple[str, int]
"""Host and port."""

_SINGLE = ("redis", "rediss", "unix")
_SENTINEL = ("redis+sentinel", "rediss+sentinel")
_CLUSTER = ("redis+cluster", "rediss+cluster")
_SENTINEL_PORT, _PORT = 26379, 6379
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:@/\[\],]+))(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed Redis URL.

    Attributes:
        kind: Kind of servers.
        url: URL of one server in the form of redis-py. Host and port are those of the first address.
        addresses: Addresses of the Sentinels, or of the named nodes of a cluster.
        service: Name of the service that the Sentinels monitor.
        sentinel_options: ``sentinel_username`` and ``sentinel_password``, if given.
    """

    kind: Literal["single", "sentinel", "cluster"]
    url: str = field(repr=False)
    addresses: tuple[Address, ...] = ()
    service: str = ""
    sentinel_options: Mapping[str, str] = field(default_factory=dict, repr=False)


def parse_redis_url(text: str) -> RedisUrl:
    """Parse a Redis URL.

    Args:
        text: The URL.

    Raises:
        ValueError: If it is invalid. The message says what to change, without the value.
    """
    text = str.__str__(text)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _SINGLE + _SENTINEL + _CLUSTER:
        raise ValueError("must start with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://")
    place, _, query = rest.partition("?")
    options = parse_qsl(query, keep_blank_values=True)
    if any(name == "protocol" for name, _ in options):
        raise ValueError("must not choose a protocol: it is RESP2, which all servers speak")
    if scheme in ("redis", "rediss") and "@" in re.sub(r"^[^/?#]*", "", rest):
        # Otherwise a part of the password would be taken for the host, which client libraries write into messages.
        raise ValueError("must write @ / ? # in a password as %40 %2F %3F %23, and @ in an option as %40")
    if scheme in _SINGLE:
        return RedisUrl("single", text)
    if "#" in rest:
        raise ValueError("must write # as %23")
    is_sentinel = scheme in _SENTINEL
    authority, _, path = place.partition("/")
    credentials, at, hosts = authority.rpartition("@")
    addresses = tuple(_parse_address(host, _SENTINEL_PORT if is_sentinel else _PORT) for host in hosts.split(","))
    service, database = _parse_sentinel_path(path) if is_sentinel else ("", _check_cluster_path(path))
    own = {name: value for name, value in options if name.startswith("sentinel_")}
    if not set(own) <= set(_SENTINEL_OPTIONS if is_sentinel else ()):
        raise ValueError("must have no sentinel_ options but a Sentinel's sentinel_username and sentinel_password")
    host, port = addresses[0]
    others = urlencode([(name, value) for name, value in options if name not in own])
    server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    url = f"{scheme.partition('+')[0]}://{credentials}{at}{server}/{database}?{others}"
    return RedisUrl("sentinel" if is_sentinel else "cluster", url, addresses, service, own)


def _parse_address(text: str, default_port: int) -> Address:
    match = _PLACE.fullmatch(text)
    port = int(match[3] or default_port) if match else 0
    if match is None or not 0 < port < 65_536:
        raise ValueError("must name hosts as host:port,host:port (and write @ / ? # in a password as %40 %2F %3F %23)")
    return match[1] or match[2], port


def _parse_sentinel_path(path: str) -> tuple[str, int]:
    service, _, database = path.partition("/")
    database = database.rstrip("/")
    if not service:
        raise ValueError("must name the service that the Sentinels monitor: redis+sentinel://host:26379/mymaster")
    if database and not (database.isascii() and database.isdigit()):
        raise ValueError("must end with the service and at most the number of a database: /mymaster/0")
    return unquote(service), int(database or 0)


def _check_cluster_path(path: str) -> int:
    if path.strip("/") not in ("", "0"):
        raise ValueError("must not choose a database: a cluster has only database 0")
    return 0

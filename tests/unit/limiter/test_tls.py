"""Redis with TLS: trusted and untrusted certificates, and a server that hangs and never closes TLS."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fastapi_keyauth import KeyAuth, KeyAuthSettings, RevokedApiKey, SetupError
from tests.helpers.keys import authenticate, make_key
from tests.helpers.servers import PASSWORD, Server

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
StartValkey = Callable[..., Server]
HANG_S = 40.0
"""Long enough for a busy machine, and far below the hour that asyncio is to wait for the end of TLS here."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([]), datetime.now(UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    built = built.add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
    path = tmp_path / "certificate.pem"
    path.write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.with_name("key.pem").write_bytes(key.private_bytes(*form))
    return path


class Front:
    """A TLS proxy for a server without TLS, until it hangs."""

    def __init__(self, server: Server, context: ssl.SSLContext) -> None:
        self._server = server
        self._context = context
        self._serving: list[asyncio.Task[None] | None] = []
        self._living: set[asyncio.StreamWriter] = set()
        self.url = ""

    @asynccontextmanager
    async def standing(self) -> AsyncIterator[Self]:
        """Hang for the duration of the block."""
        front = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.url = f"rediss://:{PASSWORD}@127.0.0.1:{front.sockets[0].getsockname()[1]}/0"
        async with front:
            yield self
            for writer in self._living:
                writer.transport.abort()
            await asyncio.gather(*filter(None, self._serving))

    def hang(self) -> None:
        """Stop reading, both questions and the end of TLS."""
        for writer in self._living:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket's

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())
        there, back = await asyncio.open_connection("127.0.0.1", self._server.port)
        self._living.add(writer)
        await asyncio.gather(_carry(reader, back), _carry(there, writer))
        self._living.discard(writer)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while received := await reader.read(65536):
            writer.write(received)
            await writer.drain()
    writer.close()


@pytest.fixture
async def front(start_valkey: StartValkey, certificate: Path) -> AsyncIterator[Front]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    async with Front(start_valkey(), context).standing() as standing:
        yield standing


def build(database_url: str, redis_url: str) -> KeyAuth:
    values = {"argon2_time_cost": 1, "argon2_memory_kib": 8, "redis_timeout_s": 10}
    return KeyAuth(KeyAuthSettings(_env_file=None, database_url=database_url, redis_url=redis_url, **values))


async def test_a_tls_server_that_hangs_delays_neither_a_question_nor_the_stop(
    database_url: str, front: Front, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncio.constants.SSL_SHUTDOWN_TIMEOUT", 3600.0)
    async with asyncio.timeout(HANG_S), build(database_url, f"{front.url}?ssl_ca_certs={certificate}") as auth:
        made, other = [await make_key(auth) for _ in range(2)]
        assert (await authenticate(auth, made.token)).remaining == 999
        await auth.keys.revoke(other.key.id)
        with pytest.raises(RevokedApiKey):
            await authenticate(auth, other.token)
        assert await auth.blocks.list() == []
        front.hang()


async def test_a_certificate_that_is_not_trusted_stops_the_start(database_url: str, front: Front) -> None:
    with pytest.raises(SetupError, match=r"rejects the connection \(.*CERTIFICATE_VERIFY_FAILED"):
        await build(database_url, front.url).__aenter__()


@contextmanager
def requiring_client_certificates(certificate: Path) -> Iterator[int]:
    """A port that accepts TLS connections with a client certificate only. asyncio would not send its alert."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificate))
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    accepted, _ = listener.accept()
                    with accepted.dup() as plain, suppress(OSError):
                        with suppress(ssl.SSLError), context.wrap_socket(accepted, server_side=True):
                            pass
                        plain.shutdown(socket.SHUT_WR)
                        while plain.recv(65536):  # unread data would turn the end into a reset, which loses the alert
                            pass

        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


async def test_a_client_certificate_that_the_server_requires_stops_the_start(
    database_url: str, certificate: Path
) -> None:
    with requiring_client_certificates(certificate) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
        with pytest.raises(SetupError, match=r"rejects the connection \(.*CERTIFICATE_REQUIRED"):
            await build(database_url, url).__aenter__()


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
async def test_a_file_of_the_url_that_does_not_exist_stops_the_start(
    database_url: str, front: Front, certificate: Path, option: str
) -> None:
    """Otherwise each worker would enforce limits on its own for good, and nobody would notice."""
    with pytest.raises(SetupError, match=f"names a file in {option} that does not exist") as failure:
        await build(database_url, f"{front.url}?{option}={certificate}.missing").__aenter__()
    assert PASSWORD not in str(failure.value)


async def test_a_file_of_the_url_that_is_not_a_certificate_stops_the_start(
    database_url: str, front: Front, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(SetupError, match="names TLS files that cannot be used"):
        await build(database_url, f"{front.url}?ssl_ca_certs={tmp_path}/ca.pem").__aenter__()

"""Which addresses are blocked, and lifting a block: for code, scripts and the command line."""

from dataclasses import dataclass

from fastapi_keyauth.concurrency.event_loop import EventLoopBinding
from fastapi_keyauth.domain.ip_addresses import AddressResolver, parse_ip
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.limiter import Limiter


@dataclass(frozen=True, slots=True)
class Block:
    """An address that is blocked.

    Attributes:
        address: as failures are counted: an IPv4 address, or the network of an IPv6 address.
        ends_in_s: whole seconds, at least 1.
    """

    address: str
    ends_in_s: int


class Blocks:
    """``auth.blocks``: look at blocks and lift them. With Redis those of all workers, without it this process's own.

    Every method may raise ``LimiterUnavailable``.
    """

    def __init__(self, limiter: Limiter, addresses: AddressResolver, event_loop: EventLoopBinding) -> None:
        self._limiter = limiter
        self._addresses = addresses
        self._event_loop = event_loop

    async def list(self) -> list[Block]:
        """All blocks that hold now, the ones that end last first."""
        self._event_loop.check()
        found = await self._limiter.blocks()
        return [Block(*item) for item in sorted(found.items(), key=lambda item: (-item[1], item[0]))]

    async def clear(self, address: str) -> bool:
        """Lift the block of an address, and forget its failed attempts. It holds everywhere within 5 s.

        Args:
            address: an IPv4 or IPv6 address, or a network as ``list`` shows it.

        Returns:
            Whether it was blocked.

        Raises:
            InvalidField: no address.
        """
        self._event_loop.check()
        ip = parse_ip(address.partition("/")[0].strip())
        if ip is None:
            raise InvalidField("address", "must be an IPv4 or IPv6 address")
        client = self._addresses.describe(ip)
        return await self._limiter.unblock(client.bucket)

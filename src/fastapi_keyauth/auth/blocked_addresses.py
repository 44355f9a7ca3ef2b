"""Blocked addresses: listing and lifting blocks, for code and the command line."""

from dataclasses import dataclass

from fastapi_keyauth.concurrency.event_loop import EventLoopBinding
from fastapi_keyauth.domain.ip_addresses import AddressResolver, parse_ip
from fastapi_keyauth.errors import InvalidField
from fastapi_keyauth.limiter import Limiter


@dataclass(frozen=True, slots=True)
class Block:
    """An address that is blocked.

    Attributes:
        address: As failed attempts are counted: an IPv4 address, or the network of an IPv6 address.
        ends_in_s: Whole seconds, at least 1.
    """

    address: str
    ends_in_s: int


class Blocks:
    """``auth.blocks``: lists and lifts blocks: with Redis those of all workers, otherwise those of this process.

    Every method may raise ``LimiterUnavailable``.
    """

    def __init__(self, limiter: Limiter, addresses: AddressResolver, event_loop: EventLoopBinding) -> None:
        self._limiter = limiter
        self._addresses = addresses
        self._event_loop = event_loop

    async def list(self) -> list[Block]:
        """Return all current blocks, those with the longest remaining duration first."""
        self._event_loop.check()
        found = await self._limiter.blocks()
        return [Block(*item) for item in sorted(found.items(), key=lambda item: (-item[1], item[0]))]

    async def clear(self, address: str) -> bool:
        """Lift the block of an address, and reset its failed attempts. It takes effect on all workers within 5 s.

        Args:
            address: An IPv4 or IPv6 address, or a network as ``list`` returns it.

        Returns:
            Whether it was blocked.

        Raises:
            InvalidField: If it is not an address.
        """
        self._event_loop.check()
        ip = parse_ip(address.partition("/")[0].strip())
        if ip is None:
            raise InvalidField("address", "must be an IPv4 or IPv6 address")
        client = self._addresses.describe(ip)
        return await self._limiter.unblock(client.bucket)

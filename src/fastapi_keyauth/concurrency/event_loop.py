"""The one event loop that an object may be used in while it is started."""

import asyncio
import threading
from asyncio import get_running_loop

OTHER_LOOP = (
    "KeyAuth is started in another event loop. Use it in the event loop of the application, or create a KeyAuth of its "
    "own for each event loop, such as each asyncio.run in a thread."
)
NO_ASYNCIO = "KeyAuth requires asyncio, but no asyncio event loop is running here: trio is not supported."


class EventLoopBinding:
    """Binds an object to the event loop that starts it, until it is stopped. Threads may compete for it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._users = 0
        self._thread_lock = threading.Lock()

    def bind(self) -> asyncio.Lock:
        """Bind to the running event loop, and count one more user.

        Returns:
            A lock for tasks of that event loop: the same for all until the last ``release``.

        Raises:
            RuntimeError: If another event loop has it, or this is not asyncio.
        """
        loop = _running_loop()
        with self._thread_lock:
            if self._loop is None:
                self._loop, self._lock = loop, asyncio.Lock()
            elif self._loop is not loop:
                raise RuntimeError(OTHER_LOOP)
            self._users += 1
            return self._lock

    def release(self) -> None:
        """Remove one user. After the last one, any event loop may bind the object."""
        with self._thread_lock:
            self._users -= 1
            if self._users == 0:
                self._loop = None

    def check(self) -> None:
        """Refuse a call from another event loop, which would fail obscurely or never return.

        Raises:
            RuntimeError: If it is bound to another event loop, or this is not asyncio.
        """
        # Every request comes here: without the call of a function of our own.
        try:
            loop = get_running_loop()
        except RuntimeError:
            raise RuntimeError(NO_ASYNCIO) from None
        if loop is not self._loop and self._loop is not None:
            raise RuntimeError(OTHER_LOOP)


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        return get_running_loop()
    except RuntimeError:
        raise RuntimeError(NO_ASYNCIO) from None

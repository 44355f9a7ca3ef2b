"""What all the apps share: the answer, and the file that tells the client which headers to send."""

import gc
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

ITEM: dict[str, object] = {"id": 1, "name": "thing"}


def tell(headers: Any) -> None:
    """Write the headers to BENCH_HEADERS. The last thing at start: whoever finds the file may begin."""
    if os.environ.get("BENCH_FREEZE") == "1":
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000)
    target = Path(os.environ["BENCH_HEADERS"])
    part = target.with_suffix(".part")
    part.write_text(json.dumps(headers))
    part.replace(target)


def tells(headers: list[Mapping[str, str]]) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan that only tells."""

    @asynccontextmanager
    async def lifespan(_app: Any) -> AsyncIterator[None]:
        tell(headers)
        yield

    return lifespan

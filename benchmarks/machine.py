"""Description of the machine that was measured."""

from __future__ import annotations

import os
import platform
import re
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "redis", "hiredis", "sqlalchemy", "argon2-cffi")


def describe(redis_version: str) -> dict[str, str]:
    """Return processor, kernel, versions and date."""
    try:
        cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        cpu = None
    return {
        "day": datetime.now(UTC).date().isoformat(),
        "cores": f"{os.cpu_count()} x {cpu[1] if cpu else platform.processor()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"CPython {platform.python_version()}",
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "server": redis_version,
    }

"""One virtual environment for each compared package, so that none affects the versions of another."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".venv-bench"
_ALL = ["fastapi>=0.128,<1", "uvicorn[standard]>=0.35,<1"]
REQUIREMENTS = {
    "limits": ["limits[redis]==5.8.0", "redis[hiredis]>=6.4,<8"],
    # Its extra "redis" requires redis-py below 4.
    "slowapi": ["slowapi==0.1.10", "limits[redis]>=5.8,<6", "redis[hiredis]>=6.4,<8"],
    "fastapi-limiter": ["fastapi-limiter==0.2.0", "pyrate-limiter[redis]>=4.5,<5", "redis[hiredis]>=6.4,<9"],
    "keysigil": ["keysigil[fastapi,redis]==0.1.2", "redis[hiredis]>=6.4,<9"],
    "keygate": ["fastapi-keygate[redis]==0.5.1", "limits[redis]>=5.8,<6", "redis[hiredis]>=6.4,<8"],
    "keyshield": [
        "keyshield[fastapi,sqlalchemy,argon2,aiocache]==2.0.1",
        "sqlalchemy[asyncio]>=2.0.44,<2.2",
        "aiosqlite>=0.20,<1",
    ],
}


def find_python(name: str) -> Path:
    """Return the interpreter of an environment, creating it if missing. "" is the project's own.

    Raises:
        subprocess.CalledProcessError: If it cannot be created (for example, without a network).
    """
    if not name:
        return Path(sys.executable)
    requirements = _ALL + REQUIREMENTS[name]
    folder = ENVIRONMENTS / f"{name}-{hashlib.sha256(repr(requirements).encode()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"making an environment for {name}", flush=True)
        uv = shutil.which("uv")
        if uv:
            subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], check=True)
            install = [uv, "pip", "install", "--quiet", "--python", str(python)]
        else:
            subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
            install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, *requirements], check=True)
        (folder / "ready").touch()
    return python

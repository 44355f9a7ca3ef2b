"""``python -m example_app``, or ``make demo``: create demo data, print a walkthrough and serve.

By default, it runs one process on SQLite. To run several workers on PostgreSQL and Redis, use
``KEYAUTH_DATABASE_URL=postgresql://... KEYAUTH_REDIS_URL=redis://... python -m example_app --workers 4``.
"""

import argparse
import asyncio
import logging
import socket
import sys
from copy import deepcopy

import uvicorn
from uvicorn.config import LOGGING_CONFIG

from fastapi_keyauth import SetupError

HOST = "127.0.0.1"


def main() -> None:
    """Run the demo. Exit with status 2 and a one-line error if it cannot start."""
    parser = argparse.ArgumentParser(prog="python -m example_app", description="The example of fastapi-keyauth.")
    parser.add_argument("--port", type=int, default=8000, help="port on 127.0.0.1 (default: 8000; 0: any free port)")
    parser.add_argument("--workers", type=int, default=1, help="number of workers; several require KEYAUTH_REDIS_URL")
    options = parser.parse_args()
    # SetupError reports a failed start, once. While serving, the log goes where uvicorn's log goes.
    logging.getLogger("fastapi_keyauth").addHandler(logging.NullHandler())
    try:
        port = prepare(options.port, options.workers)
    except SetupError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    uvicorn.run(
        "example_app.app:app",
        host=HOST,
        port=port,
        workers=options.workers,
        # Uvicorn trusts X-Forwarded-For from 127.0.0.1 by default. KEYAUTH_TRUSTED_PROXIES names the trusted proxies.
        proxy_headers=False,
        log_config=log_config(),
    )


def prepare(port: int, workers: int) -> int:
    """Check the settings and the port, create the demo data and print the walkthrough.

    Returns:
        The port to serve on.
    """
    # Imported here because these imports raise an error for an invalid setting.
    from example_app.auth import auth  # noqa: PLC0415
    from example_app.demo import seed, walkthrough  # noqa: PLC0415

    if workers < 1:
        raise SetupError("--workers must be at least 1.")
    if workers > 1 and auth.settings.redis_url is None:
        raise SetupError("Several workers can share counters only through Redis: set KEYAUTH_REDIS_URL.")
    try:
        with socket.create_server((HOST, port)) as probe:
            port = probe.getsockname()[1]
    except (OSError, OverflowError):
        raise SetupError(f"Port {port} is not available: choose another one with --port.") from None
    print(walkthrough(f"http://{HOST}:{port}", asyncio.run(seed())), flush=True)
    return port


def log_config() -> dict[str, object]:
    """Return uvicorn's logging configuration, with the reasons for refused requests added."""
    config = deepcopy(LOGGING_CONFIG)
    config["loggers"]["fastapi_keyauth"] = {"handlers": ["default"], "level": "INFO", "propagate": False}
    return config


if __name__ == "__main__":
    main()

"""Push closed days of usage to a billing system, each item only once. Run it as often as you like.

    USAGE_URL=https://api.example/api-keys/usage/batches USAGE_KEY=ka_live_... \
    BILLING_URL=https://billing.example/usage BILLING_TOKEN=... python -m example_app.export_usage

``USAGE_KEY`` is an API key with the scope ``admin``. Each item is sent as JSON with its id as ``Idempotency-Key``, so
the billing system recognizes an item that is sent again because its first response was lost. The id of the last
acknowledged item is stored in the file ``EXPORT_STATE`` (``usage-export.txt``); the next run continues after it.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

TRIES = 6
FIRST_PAUSE_S = 0.5
TIMEOUT_S = 10.0


class NotAccepted(Exception):
    """The other side rejects a request, and a retry would not help."""


@dataclass(repr=False)  # no repr, which would show the credentials
class Export:
    """One run: from the last acknowledged item to the newest closed day."""

    usage_url: str
    usage_key: str
    billing_url: str
    billing_token: str
    state: Path
    timeout_s: float = TIMEOUT_S
    pause: Callable[[float], None] = time.sleep

    def run(self) -> int:
        """Send all closed items that are not acknowledged yet. Return the number of items.

        Raises:
            NotAccepted: If one side rejects a request. Items that were acknowledged before stay acknowledged.
        """
        count = 0
        with httpx.Client(timeout=self.timeout_s) as client:
            for item in self._read_items(client):
                headers = {
                    "Authorization": f"Bearer {self.billing_token}",
                    "Idempotency-Key": f"usage-{item['id']}",
                }
                self._send(client, "POST", self.billing_url, headers, json=item)
                self._acknowledge(item["id"])
                count += 1
        return count

    def _read_items(self, client: httpx.Client) -> Iterator[dict[str, Any]]:
        after = int(self.state.read_text()) if self.state.exists() else 0
        while True:
            headers = {"api-key": self.usage_key}
            found = self._send(client, "GET", self.usage_url, headers, params={"after": after}).json()
            yield from found["items"]
            if found["next_after"] is None:
                return
            after = found["next_after"]

    def _send(
        self, client: httpx.Client, method: str, url: str, headers: dict[str, str], **rest: Any
    ) -> httpx.Response:
        problem = ""
        for number in range(TRIES):
            if number:
                self.pause(FIRST_PAUSE_S * 2 ** (number - 1))
            try:
                response = client.request(method, url, headers=headers, **rest)
            except httpx.TransportError as error:  # lost or late: it may have been received, so it is sent again
                problem = type(error).__name__
                continue
            if response.is_success:
                return response
            problem = f"status {response.status_code}"
            if response.status_code < 500 and response.status_code not in (408, 409, 425, 429):
                break
        raise NotAccepted(f"{method} {url}: {problem}")

    def _acknowledge(self, item_id: int) -> None:
        """Replace the file in one step, so that a crash leaves either the old or the new number."""
        new = self.state.with_suffix(".new")
        new.write_text(str(item_id))
        new.replace(self.state)


def main() -> int:
    """Run with the settings of the environment, and return the exit status."""
    names = ("USAGE_URL", "USAGE_KEY", "BILLING_URL", "BILLING_TOKEN")
    usage_url, usage_key, billing_url, billing_token = (os.environ[name] for name in names)
    state = Path(os.environ.get("EXPORT_STATE", "usage-export.txt"))
    try:
        count = Export(usage_url, usage_key, billing_url, billing_token, state).run()
    except NotAccepted as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{count} items exported.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

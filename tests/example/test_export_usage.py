"""The export of closed days: every item arrives, and none counts twice, whatever the billing system does."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from example_app.export_usage import Export, NotAccepted

ITEMS = [
    {"id": number, "day": "2026-11-10", "owner_id": "acme", "key_id": "k", "unit": "requests", "units": number}
    for number in (3, 4, 7, 9)
]
PAGE = 3


class Billing:
    """A billing system, and the service that hands out closed days.

    Attributes:
        plan: What it does with the next requests: ``refuse``, ``hang up`` after it has booked the item, respond
            ``late``, or an error status. Then it responds.
        booked: Items by their idempotency key.
        posts: Requests that it received.
    """

    def __init__(self) -> None:
        self.plan: list[str | int] = []
        self.booked: dict[str, dict[str, Any]] = {}
        self.posts = 0
        self.is_over = threading.Event()

    def post(self, key: str, item: dict[str, Any]) -> int | None:
        self.posts += 1
        act = self.plan.pop(0) if self.plan else "answer"
        if isinstance(act, int):
            return act
        if act == "refuse":
            return None
        assert self.booked.setdefault(key, item) == item
        if act == "late":
            self.is_over.wait(10)
        return None if act == "hang up" else 200


@contextmanager
def serving(billing: Billing) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            assert self.headers["api-key"] == "ka_test"
            after = int(parse_qs(urlsplit(self.path).query)["after"][0])
            items = [item for item in ITEMS if int(str(item["id"])) > after][:PAGE]
            self._answer(200, {"items": items, "next_after": items[-1]["id"] if items else None})

        def do_POST(self) -> None:  # the name that http.server calls
            item = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = billing.post(self.headers["idempotency-key"], item)
            if status is None:
                self.close_connection = True
            else:
                self._answer(status, {})

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        billing.is_over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def export(url: str, folder: Path, timeout_s: float = 5) -> int:
    state = folder / "state.txt"
    run = Export(f"{url}/batches", "ka_test", f"{url}/usage", "secret", state, timeout_s, pause=lambda _: None)
    return run.run()


def booked(billing: Billing) -> list[Any]:
    return sorted((item for item in billing.booked.values()), key=lambda item: int(item["id"]))


def test_each_item_arrives_once_over_several_runs(tmp_path: Path) -> None:
    billing = Billing()
    with serving(billing) as url:
        assert export(url, tmp_path) == len(ITEMS)
        assert export(url, tmp_path) == 0
    assert booked(billing) == ITEMS
    assert billing.posts == len(ITEMS)


@pytest.mark.parametrize(
    "plan",
    [["refuse", "refuse"], ["hang up"], [500, 503, 429], ["refuse", "hang up", 502, "answer", "hang up"]],
    ids=str,
)
def test_a_billing_system_that_fails_gets_the_item_again(tmp_path: Path, plan: list[str | int]) -> None:
    billing = Billing()
    billing.plan = list(plan)
    with serving(billing) as url:
        assert export(url, tmp_path) == len(ITEMS)
    assert booked(billing) == ITEMS


def test_a_response_that_comes_late_books_the_item_once(tmp_path: Path) -> None:
    billing = Billing()
    billing.plan = ["answer", "late"]
    with serving(billing) as url:
        assert export(url, tmp_path, timeout_s=2) == len(ITEMS)  # with less, a busy machine is late too
    assert booked(billing) == ITEMS
    assert billing.posts == len(ITEMS) + 1


def test_the_next_run_goes_on_after_the_last_item_that_was_acknowledged(tmp_path: Path) -> None:
    billing = Billing()
    billing.plan = ["answer", "answer", 422]
    with serving(billing) as url:
        with pytest.raises(NotAccepted, match="422"):
            export(url, tmp_path)
        assert (tmp_path / "state.txt").read_text() == "4"
        assert export(url, tmp_path) == 2
    assert booked(billing) == ITEMS

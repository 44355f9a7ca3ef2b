"""The shapes of `example_app/shapes`, served on a loopback port of this process.

OpenAI's SDK takes a second to import. Functions import it, since each process of `make test` imports all test modules.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import httpx

from tests.helpers.served import served

if TYPE_CHECKING:
    import openai

LONG = " ".join(map(str, range(500)))
"""A prompt whose answer takes the model 50 seconds."""


@dataclass(frozen=True)
class Shape:
    """A served shape. `client` calls it without credentials; `session` holds the headers of its user."""

    module: ModuleType
    url: str
    client: httpx.AsyncClient
    session: dict[str, str]

    async def create_key(self, name: str = "test", **fields: Any) -> dict[str, Any]:
        """Create a key as the user does, over HTTP. Return it with its token."""
        answer = await self.client.post("/api-keys", json={"name": name, **fields}, headers=self.session)
        assert answer.status_code == 201, answer.text
        created: dict[str, Any] = answer.json()
        return created

    async def revoke(self, key: dict[str, Any]) -> None:
        """Revoke a key as the user does."""
        answer = await self.client.delete(f"/api-keys/{key['id']}", headers=self.session)
        assert answer.status_code == 204, answer.text

    def sdk(self, token: str, **options: Any) -> openai.AsyncOpenAI:
        """Return OpenAI's SDK as a user sets it up: with the token and the address. It does not retry."""
        import openai

        return openai.AsyncOpenAI(api_key=token, base_url=f"{self.url}/v1", max_retries=0, **options)


@asynccontextmanager
async def serve_shape(module: ModuleType) -> AsyncIterator[Shape]:
    """Serve a shape and log in as its user."""
    app: Any = module.app
    async with app.router.lifespan_context(app), served(app, "httptools") as port:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            demo: Any = sys.modules["example_app.shapes.demo"]
            answer = await client.post("/login", json={"email": demo.EMAIL, "password": demo.PASSWORD})
            yield Shape(module, url, client, {"Authorization": f"Bearer {answer.json()['session_token']}"})


async def ask(client: openai.AsyncOpenAI, content: str = "Polly wants a cracker") -> str:
    """Return the answer to a prompt."""
    completion = await client.chat.completions.create(
        model="parrot-1", messages=[{"role": "user", "content": content}], max_tokens=500
    )
    return completion.choices[0].message.content or ""


def problem_of(error: openai.APIStatusError) -> tuple[int, str | None, str]:
    """Return status, code and sentence, as the SDK shows them."""
    return error.status_code, error.code, str(error)

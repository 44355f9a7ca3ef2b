"""The model of the examples. It repeats the prompt, in the formats of OpenAI's chat completions."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel, Field, StrictBool

NAME = "parrot-1"
MODELS = {"object": "list", "data": [{"id": NAME, "object": "model", "created": 0, "owned_by": "example"}]}
PAUSE_S = 0.1
"""Time that the model takes for a word."""
_HEAD: dict[str, Any] = {"id": "chatcmpl-1", "created": 0, "model": NAME}


class Message(BaseModel):
    """A message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(min_length=1, max_length=4000)


class Chat(BaseModel):
    """A conversation to be continued."""

    model: Literal["parrot-1"]
    messages: list[Message] = Field(min_length=1, max_length=20)
    max_tokens: int = Field(100, ge=1, le=1000, description="Maximum length of the answer, in words.")
    stream: StrictBool = Field(False, description="Whether to send the answer word by word, as server-sent events.")


class Answer:
    """The answer to a chat.

    Attributes:
        tokens: Tokens used so far: the words of the prompt, and those of the answer that are generated.
        max_tokens: Tokens that it may use at most.
    """

    def __init__(self, chat: Chat) -> None:
        self._words = chat.messages[-1].content.split()[: chat.max_tokens]
        self.tokens = sum(len(message.content.split()) for message in chat.messages)
        self.max_tokens = self.tokens + chat.max_tokens

    async def _generate(self) -> AsyncIterator[str]:
        for word in self._words:
            await asyncio.sleep(PAUSE_S)
            self.tokens += 1
            yield word

    async def complete(self) -> dict[str, Any]:
        """Return the whole answer."""
        content = " ".join([word async for word in self._generate()])
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        return _HEAD | {"object": "chat.completion", "choices": [choice], "usage": {"total_tokens": self.tokens}}

    async def stream(self) -> AsyncIterator[str]:
        """Yield the answer as server-sent events, one for each word."""
        async for word in self._generate():
            choice = {"index": 0, "delta": {"content": f"{word} "}, "finish_reason": None}
            chunk = _HEAD | {"object": "chat.completion.chunk", "choices": [choice]}
            yield f"data: {json.dumps(chunk)}\n\n"
        yield "data: [DONE]\n\n"

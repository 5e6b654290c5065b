"""One small chat model for all tests of the running engine, and ways to ask it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import trio
from quiver.proxy.local.engine import Event, LocalEngine, open_local_engine
from quiver.proxy.native import Failed, Finished, Text, TokenLogprob
from quiver.schemas.engine import GenerateRequest, Prompt

from .chat_model import LETTERS, write_chat_model


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_chat_model(tmp_path_factory.mktemp("engine") / "chat.gguf"))


@pytest.fixture
async def engine(chat_model: str) -> AsyncIterator[LocalEngine]:
    async with open_local_engine(chat_model, max_sequences=8) as engine:
        yield engine


def ask(text: str = "once upon a time", **fields: Any) -> bytes:
    """A request that is answered in letters, 24 of them, the same ones every time, unless `fields` say otherwise."""
    defaults: dict[str, Any] = {
        "prompt": Prompt(text=text),
        "max_tokens": 24,
        "temperature": 0.0,
        "logit_bias": dict.fromkeys(map(str, LETTERS), 20.0),
    }
    own = {name: fields.pop(name) for name in ("window", "ignore_eos", "scope") if name in fields}
    request = msgspec.to_builtins(GenerateRequest(**(defaults | fields)))
    return msgspec.json.encode(request | own)


@dataclass
class Answer:
    """What came of one request."""

    text: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: Finished | Failed | None = None

    def take(self, event: Event) -> None:
        assert self.end is None, f"{event} after {self.end}"
        if isinstance(event, Text):
            self.text += event.text
            self.pieces.append(event.text)
            self.logprobs += event.logprobs
        elif isinstance(event, Finished | Failed):
            self.end = event

    @property
    def reason(self) -> str:
        """How it ended: `stop`, `length`, `cancelled`, or the code of its failure."""
        assert self.end is not None
        return self.end.reason if isinstance(self.end, Finished) else self.end.code


async def answer(engine: LocalEngine, request: bytes) -> Answer:
    whole = Answer()
    async with engine.generate(request) as events:
        async for event in events:
            whole.take(event)
    return whole


@asynccontextmanager
async def first_text(engine: LocalEngine, request: bytes) -> AsyncIterator[None]:
    """A generation that has begun to answer; cancelled at the end."""
    async with engine.generate(request) as events:
        async for event in events:
            if isinstance(event, Text):
                break
        yield


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what only the engine's own thread brings about; the suite's timeout is the limit."""
    while not condition():  # noqa: ASYNC110 - figures have no event to wait for
        await trio.sleep(0.001)

"""What was asked and answered in one exchange, for those who opted in to have it kept; nobody else's is ever looked at.

While the exchange runs this holds on to bytes that are there anyway. They become text off the event loop, once the record is
written; only of a long stream is some of that done on the way, so that no more than its text stays in memory.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

# What is kept of a prompt, and of an answer, in bytes of UTF-8.
LONGEST = 256 * 1024
# What is held of a stream's events before they become text: about a third of a millisecond's work.
_HELD = 64 * 1024
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.+-]+)*;base64,([A-Za-z0-9+/=_-]*)")


class _Function(msgspec.Struct, frozen=True):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct, frozen=True):
    function: _Function = _Function()


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct, frozen=True):
    index: int = 0
    text: str | None = None
    message: _Message | None = None
    delta: _Message | None = None


class _Reply(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []


_decode_reply = msgspec.json.Decoder(_Reply).decode


class Content:
    """The prompt and the answer of one exchange. `own`: the client's key asked for them to be kept."""

    __slots__ = ("_body", "_events", "_held", "_prompt", "_texts", "_whole", "own")

    def __init__(self, prompt: bytes, *, own: bool) -> None:
        self._prompt, self.own = prompt, own
        self._body: bytes | None = None
        self._events: list[bytes] = []
        self._held = self._whole = 0
        self._texts: dict[int, list[str]] = {}

    def __repr__(self) -> str:
        return f"<Content: {len(self._prompt)} bytes asked, {self._whole} characters and {self._held} bytes answered>"

    def take_body(self, body: bytes) -> None:
        """A whole answer."""
        self._body = body

    def take_events(self, events: bytes) -> None:
        """Some more of a streamed answer: whole events."""
        if self._held > _HELD:
            self._read_events()
        self._events.append(events)
        self._held += len(events)

    def prompt(self) -> str | None:
        """What was asked, as text; images and sounds by their type and size."""
        try:
            asked = msgspec.json.decode(self._prompt)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(asked, dict):
            return None
        found = asked.get("messages", asked.get("prompt", asked.get("input")))
        return None if found is None else bounded("\n\n".join(_texts(found)))

    def answer(self) -> str | None:
        """What was answered, as far as it came."""
        if self._body is not None:
            self._read(self._body)
            self._body = None
        self._read_events()
        if not self._texts:
            return None
        texts = {index: "".join(pieces) for index, pieces in sorted(self._texts.items())}
        if len(texts) > 1:
            return bounded("\n\n".join(f"[{index}] {text}" for index, text in texts.items()))
        return bounded(next(iter(texts.values())), self._whole)

    def _read_events(self) -> None:
        events, self._events, self._held = b"".join(self._events), [], 0
        for line in events.split(b"\n"):
            if line.startswith(b"data:"):
                self._read(line[5:])

    def _read(self, reply: bytes) -> None:
        try:
            choices = _decode_reply(reply).choices
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # `[DONE]`, or a form of its own
        for choice in choices:
            for piece in _said(choice):
                # Beyond the limit only the length counts.
                if self._whole <= LONGEST:
                    self._texts.setdefault(choice.index, []).append(piece)
                self._whole += len(piece)


def bounded(text: str, length: int | None = None) -> str:
    """`text`, which is the beginning of `length` characters, without binary data and with at most `LONGEST` bytes."""
    missing = max(0, (length or 0) - len(text))
    text = _DATA_URL.sub(lambda found: _left_out(found[1] or "data", found[2]), text)
    data = text.encode("utf-8", "replace")
    if len(data) > LONGEST:
        cut = data[:LONGEST].decode("utf-8", "ignore")
        missing += len(text) - len(cut)
        text = cut
    return f"{text}… [{missing} more characters]" if missing else text


def _said(choice: _Choice) -> Iterator[str]:
    if choice.text:
        yield choice.text
    for message in (choice.message, choice.delta):
        if message is None:
            continue
        if message.content:
            yield message.content
        for call in message.tool_calls or ():
            if call.function.name:
                yield f"[calls {call.function.name}] "
            if call.function.arguments:
                yield call.function.arguments


def _texts(asked: Any) -> Iterator[str]:
    """The texts of messages, of a prompt or several, of things to embed."""
    match asked:
        case str():
            yield asked
        case [int(), *more] if all(isinstance(each, int) for each in more):
            yield f"[{len(asked)} tokens]"
        case list():
            for each in asked:
                yield from _texts(each)
        case {"role": str(role), **message}:
            yield f"{role}: {''.join(_parts(message))}"
        case dict() as part:
            yield "".join(_parts({"content": [part]}))


def _parts(message: Mapping[Any, Any]) -> Iterator[str]:
    """What one message says."""
    content = message.get("content")
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        match part:
            case {"type": "text" | "input_text", "text": str(text)}:
                yield text
            case {"type": "image_url", "image_url": str(url) | {"url": str(url)}}:
                yield _DATA_URL.sub(lambda found: _left_out(found[1] or "image", found[2]), url)
            case {"type": "input_audio", "input_audio": {"data": str(data), **audio}}:
                yield _left_out(f"audio/{audio.get('format', 'unknown')}", data)
            case {"type": str(kind)}:
                yield f"[{kind}, {len(msgspec.json.encode(part))} bytes left out]"
    for call in message.get("tool_calls") or ():
        match call:
            case {"function": {"name": str(name), "arguments": str(arguments)}}:
                yield f"[calls {name}] {arguments}"


def _left_out(kind: str, base64: str) -> str:
    return f"[{kind}, {len(base64.rstrip('=')) * 3 // 4} bytes left out]"

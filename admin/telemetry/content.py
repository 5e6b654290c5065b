"""Prompts and answers in the form that OpenTelemetry's conventions give them. Only where `telemetry.content` asks for it."""

from typing import Any

import msgspec

Message = dict[str, Any]


def input_messages(body: bytes) -> str:
    """A request's messages or prompt, as JSON; "" for a body that has none."""
    asked = _decoded(body)
    messages = asked.get("messages")
    if not isinstance(messages, list):
        prompt = asked.get("prompt", asked.get("input"))
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else []
    return _written([_message(message) for message in messages if isinstance(message, dict)])


def output_messages(content: bytes) -> str:
    """A reply's choices, streamed or not, as JSON; "" for a reply that has none."""
    choices: dict[int, Message] = {}
    if content.lstrip().startswith(b"{"):
        chunks = [_decoded(content)]
    else:
        lines = content.split(b"\n")
        chunks = [_decoded(line[5:]) for line in lines if line.startswith(b"data:") and not line.endswith(b"[DONE]")]
    for chunk in chunks:
        for choice in chunk.get("choices") or []:
            _add(choices.setdefault(choice.get("index", 0), {"text": "", "finish_reason": ""}), choice)
    return _written(
        [
            {
                "role": "assistant",
                "parts": [{"type": "text", "content": said["text"]}],
                "finish_reason": said["finish_reason"],
            }
            for said in choices.values()
        ]
    )


def _add(said: Message, choice: Message) -> None:
    part = choice.get("delta") or choice.get("message") or {}
    said["text"] += part.get("content") or choice.get("text") or ""
    said["finish_reason"] = choice.get("finish_reason") or said["finish_reason"]


def _message(message: Message) -> Message:
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = "\n".join(text for text in texts if isinstance(text, str))
    return {"role": message.get("role", "user"), "parts": [{"type": "text", "content": content or ""}]}


def _written(messages: list[Message]) -> str:
    return msgspec.json.encode(messages).decode() if messages else ""


def _decoded(data: bytes) -> Message:
    """What was cut, or is none of ours, says nothing."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return found if isinstance(found, dict) else {}

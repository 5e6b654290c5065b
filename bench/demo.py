"""The whole system in one minute: start a gateway, ask the built-in model through HTTP, print what a user would see.

Exit code 0 only if the answer came streamed and the gateway stopped cleanly.
"""

import json
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from bench.running import gateway

QUESTION = "How do I register a server?"


def stream_chat(url: str, question: str) -> Iterator[dict[str, Any]]:
    """The JSON chunks of one streamed chat request."""
    body = {
        "model": "bolt",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as reply:
        for line in reply:
            data = line.decode().strip().removeprefix("data: ")
            if data and data != "[DONE]" and not data.startswith(":"):
                yield json.loads(data)


def ask(url: str) -> int:
    """Ask, print the answer as it arrives and what it took; how many chunks had text."""
    began, first, texts = time.perf_counter(), 0.0, 0
    usage: dict[str, int] = {}
    for chunk in stream_chat(url, QUESTION):
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text = choice["delta"].get("content", "")
            if text:
                first = first or time.perf_counter()
                texts += 1
                print(text, end="", flush=True)
    ended = time.perf_counter()
    assert first, "the model said nothing"
    tokens = usage["completion_tokens"]
    rate = (tokens - 1) / max(ended - first, 1e-9)
    print(
        f"\n\n{tokens} tokens in {texts} chunks, {rate:.0f} tokens/s, first token after {(first - began) * 1000:.0f} ms"
    )
    return texts


def main() -> int:
    with gateway() as running:
        print(f"Quiver serves at {running.url}\n\n> {QUESTION}\n")
        texts = ask(running.url)
        code = running.stop()
    print(f"stopped with exit code {code}")
    return 0 if texts > 1 and code == 130 else 1


if __name__ == "__main__":
    sys.exit(main())

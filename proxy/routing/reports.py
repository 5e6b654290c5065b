"""What model servers say of their own load, in Prometheus' text format: requests running and waiting, ours and others'."""

# A server of one kind has the names of that kind only, so that all can be added up.
NAMES = (
    b"vllm:num_requests_running",
    b"vllm:num_requests_waiting",
    b"llamacpp:requests_processing",
    b"llamacpp:requests_deferred",
    b"quiver_in_flight",
)
# Beyond this a number is not a count of requests, whatever else it may be.
IMPLAUSIBLE = 1e9


def reported_load(metrics_text: bytes) -> float | None:
    """Requests running and waiting on the server, over all its engines and models; None if `metrics_text` does not say.

    Any bytes are taken: what is not a sample of a known name with a plausible value is passed over. One search per name, so
    that a page of thousands of lines costs little.
    """
    samples = [value for name in NAMES for value in _samples(metrics_text, name)]
    return sum(samples) if samples else None


def _samples(text: bytes, name: bytes) -> list[float]:
    samples = []
    at = -1
    while (at := text.find(name, at + 1)) >= 0:
        if at and text[at - 1 : at] != b"\n":
            continue
        end = text.find(b"\n", at)
        value = _value(text[at + len(name) : end if end >= 0 else len(text)])
        if value is not None:
            samples.append(value)
    return samples


# `rest` is a line after the name: labels perhaps, the value, a timestamp perhaps. A label's value may hold any character, but
# what comes after the labels holds no brace.
def _value(rest: bytes) -> float | None:
    if rest.startswith(b"{"):
        rest = rest[rest.rfind(b"}") + 1 :]
    elif rest[:1] not in (b" ", b"\t"):
        return None
    words = rest.split(None, 1)
    try:
        value = float(words[0]) if words else -1.0
    except ValueError:
        return None
    return value if 0 <= value < IMPLAUSIBLE else None

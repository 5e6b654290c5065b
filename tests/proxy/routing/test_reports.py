"""The load that model servers report of themselves, out of real and broken metrics pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from quiver.proxy.routing.reports import NAMES, reported_load

VLLM = b"""\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3-8B"} 3.0
vllm:num_requests_running{engine="1",model_name="Qwen/Qwen3-8B"} 2.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="Qwen/Qwen3-8B"} 4.0
vllm:num_requests_waiting{engine="1",model_name="Qwen/Qwen3-8B"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="Qwen/Qwen3-8B"} 0.25
"""
LLAMA_CPP = b"""\
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# HELP llamacpp:requests_deferred Number of requests deferred.
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 5
llamacpp:prompt_tokens_total 33065
"""
QUIVER = b"# TYPE quiver_in_flight gauge\nquiver_in_flight 6.0\nquiver_connections 9.0\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (VLLM, 9.0),
        (LLAMA_CPP, 7.0),
        (QUIVER, 6.0),
        (VLLM.replace(b"\n", b"\r\n"), 9.0),
        (b"quiver_in_flight 0.0", 0.0),
        (b"vllm:num_requests_running 1", 1.0),
        (b"llamacpp:requests_processing\t2", 2.0),
        (b"llamacpp:requests_processing 2 1700000000000\n", 2.0),
        (b'vllm:num_requests_running{model_name="m"}4', 4.0),
        (b'vllm:num_requests_running {model_name="m"} 4', None),
        (b"vllm:num_requests_running{} 1e2", 100.0),
        (b'vllm:num_requests_running{model_name="} 8 {\\"",engine="# 0"} 1', 1.0),
        # Nothing that counts requests.
        (b"", None),
        (b"\n\n", None),
        (b"ollama says hello", None),
        (b"<html>quiver_in_flight 3</html>", None),
        (b"# quiver_in_flight 3", None),
        (b"other_quiver_in_flight 3", None),
        (b"quiver_in_flight_total 3", None),
        (b"quiver_in_flight", None),
        (b"quiver_in_flight ", None),
        (b"quiver_in_flight\n3", None),
        (b"quiver_in_flight three", None),
        (b'quiver_in_flight{a="b" 3', None),
        (b"quiver_in_flight \xff\xfe", None),
        (b"quiver_in_flight NaN", None),
        (b"quiver_in_flight +Inf", None),
        (b"quiver_in_flight -1", None),
        (b"quiver_in_flight 1e300", None),
        # What is broken does not hide what is not.
        (b"quiver_in_flight NaN\nquiver_in_flight 3", 3.0),
        (b"\xff\xfe\x00\nquiver_in_flight 3\n\xff", 3.0),
    ],
)
def test_reported_load(text: bytes, expected: float | None) -> None:
    assert reported_load(text) == expected


def test_client_library_is_read() -> None:
    registry = CollectorRegistry()
    running = Gauge("vllm:num_requests_running", "Running", ["model_name"], registry=registry)
    for model, requests in (("plain", 2), ('odd "}\n{\\', 5)):
        running.labels(model).set(requests)
    assert reported_load(generate_latest(registry)) == 7.0


@given(st.lists(st.one_of(st.binary(max_size=8), st.sampled_from([*NAMES, b"\n", b" ", b"{", b"}", b"1"]))))
def test_any_bytes_are_taken(pieces: list[bytes]) -> None:
    load = reported_load(b"".join(pieces))
    assert load is None or load >= 0

"""What a real gateway counts of real work, built-in engine included."""

from . import page


def value(name: str, **labels: str) -> float:
    """Of all series with these labels."""
    samples = [sample for family in page.families().values() for sample in family.samples if sample.name == name]
    assert samples, name
    return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())


def test_work_for_nobody_is_counted() -> None:
    """A client of the built-in model left: what was written for it is wasted, and the engine has let go."""
    assert value("quiver_wasted_tokens_total") > 0
    assert value("quiver_engine_cancelled_total", model="bolt") >= 1
    assert value("quiver_engine_cancel_seconds_count", model="bolt") >= 1
    assert value("quiver_cancel_latency_seconds_count", server="engine:bolt") >= 1


def test_streams_are_timed() -> None:
    for model, server in (("m", "b2"), ("bolt", "engine:bolt")):
        assert value("quiver_time_to_first_token_seconds_count", model=model, server=server) >= 1
        assert value("quiver_inter_token_seconds_count", model=model, server=server) >= 2


def test_troubles_are_counted() -> None:
    assert value("quiver_retries_total", reason="upstream_error") >= 1
    assert value("quiver_errors_total", code="model_not_found", category="configuration") == 1
    assert value("quiver_auth_failures_total", plane="inference") == 1
    assert value("quiver_queue_seconds_count") >= 1
    assert value("quiver_control_requests_total", route="/health", status="200") == 1
    assert value("quiver_circuit_transitions_total", server="b1", state="suspect") >= 1
    assert value("quiver_health_check_seconds_count", result="passed") >= 3
    assert value("quiver_cache_hits_total") == 1


def test_names_keep_the_conventions() -> None:
    """Base units, `_total` for counters alone, and a word on each."""
    for name, family in page.families().items():
        assert family.documentation, name
        assert name.startswith(("quiver_", "process_"))
        assert name.endswith("_total") == (family.type == "counter"), name
        assert not name.removesuffix("_total").endswith(("_ms", "_milliseconds", "_minutes", "_kb", "_mb", "_percent"))

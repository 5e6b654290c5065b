"""Real gateways as processes of their own, as a user starts them."""

from collections.abc import Iterator

import pytest

from bench.running import Running, gateway

KEY = "sk-planted-0123456789"


@pytest.fixture(scope="session")
def served() -> Iterator[Running]:
    """One gateway with the built-in model, shared by tests that only ask."""
    with gateway() as running:
        yield running


@pytest.fixture(scope="session")
def two_tier(served: Running) -> Iterator[Running]:
    """A gateway without an engine of its own, in front of two others that offer the same model."""
    with gateway() as second:
        backends = "".join(
            f'[[backends]]\nname = "{name}"\nurl = "{running.url}"\n'
            for name, running in (("one", served), ("two", second))
        )
        with gateway(f'[engine]\nbolt = false\n[auth]\nkeys = ["{KEY}"]\n{backends}') as front:
            yield front

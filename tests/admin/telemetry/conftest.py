"""Model servers in memory, as the data plane's tests have them."""

import pytest
import trio

from ...proxy.servers import Farm


@pytest.fixture
def farm(nursery: trio.Nursery) -> Farm:
    return Farm(nursery)

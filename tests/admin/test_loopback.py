import pytest
from quiver.admin.loopback import is_loopback

CASES = {
    "localhost": True,
    "LOCALHOST": True,
    "127.0.0.1": True,
    "127.9.8.7": True,
    "::1": True,
    "0.0.0.0": False,
    "::": False,
    "192.168.1.4": False,
    "128.0.0.1": False,
    "gateway.lab": False,
    "127.0.0.1.example.org": False,
    "localhost.example.org": False,
    "": False,
}


@pytest.mark.parametrize("host", CASES)
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host) is CASES[host]

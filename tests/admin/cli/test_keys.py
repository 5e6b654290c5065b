"""`quiver keys`: what it asks of the gateway, and that a key is printed once, alone, where a program can take it."""

import json
from pathlib import Path
from typing import Any

import pytest
from quiver.admin.cli.amounts import allowance, amount, many, shown
from quiver.admin.configuration.complaint import SettingsError

from ..conftest import Speak, reply
from .test_cli import envelope, quiver_command

KEY = "qv-jCIZ4zWxTjOKUrwaT2ptwO7Id34vfZXKGU1okKMM"
REPORT: dict[str, Any] = {
    "id": "key_1",
    "name": "alice",
    "origin": "issued",
    "state": "active",
    "hint": "kKMM",
    "models": ["m"],
    "priority": "normal",
    "keep_content": False,
    "requests": {"limit": 60, "remaining": 58, "reset": 2.0},
    "tokens": None,
    "budget": {"tokens": 1_500_000, "period": "month", "spent": 500_000, "reserved": 0, "left": 1_000_000, "ends": 2e9},
    "created": 1.7e9,
    "changed": 1.7e9,
    "version": 1,
    "expires": None,
    "revoked": None,
    "previous_until": None,
    "last_used": None,
}


def told(**fields: object) -> bytes:
    return reply("200 OK", json.dumps(REPORT | fields).encode())


def sent(request: bytes) -> tuple[str, Any]:
    """The request line, and the body."""
    head, _, body = request.partition(b"\n\n")
    return head.split(b" HTTP/", 1)[0].decode(), json.loads(body) if body else None


def test_new_key_stands_alone_on_stdout(speak: Speak) -> None:
    gateway = speak(told(key=KEY))
    options = "--requests 60 --budget 1.5M/month --models m,n --models o --priority low --keep-content"
    done = quiver_command("keys", "create", "alice", *options.split(), "--url", gateway.url)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{KEY}\n"
    assert "only time" in done.stderr
    assert KEY not in done.stderr
    assert sent(gateway.requests[0]) == (
        "POST /admin/keys",
        {
            "name": "alice",
            "requests_per_minute": 60,
            "budget_tokens": 1_500_000,
            "budget_period": "month",
            "models": ["m", "n", "o"],
            "priority": "low",
            "keep_content": True,
        },
    )


def test_own_key_is_not_printed(speak: Speak, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("brought-by-the-operator-1\n")
    gateway = speak(told(key=None))
    done = quiver_command("keys", "create", "alice", "--key-file", str(file), "--url", gateway.url)
    assert (done.exit_code, done.stdout) == (0, "")
    assert sent(gateway.requests[0])[1]["key"] == "brought-by-the-operator-1"
    file.write_text("too-short")
    assert quiver_command("keys", "create", "alice", "--key-file", str(file), "--url", gateway.url).exit_code == 2


def test_none_takes_limits_away(speak: Speak) -> None:
    gateway = speak(told(version=2))
    done = quiver_command(
        "keys", "update", "alice", "--for", "none", "--budget", "none", "--models", "none", "--url", gateway.url
    )
    assert done.stdout == "changed `alice` (version 2)\n"
    assert sent(gateway.requests[0]) == (
        "PATCH /admin/keys/alice",
        {"expires": None, "budget_tokens": None, "models": []},
    )
    assert quiver_command("keys", "update", "alice", "--url", gateway.url).exit_code == 2


def test_rotation_prints_the_new_key(speak: Speak) -> None:
    gateway = speak(told(key=KEY, previous_until=1.8e9))
    done = quiver_command("keys", "rotate", "a/b", "--grace", "1d", "--url", gateway.url)
    assert done.stdout == f"{KEY}\n"
    assert "the old key opens until 2027-01-15" in done.stderr
    assert sent(gateway.requests[0]) == ("POST /admin/keys/a%2Fb/rotate", {"grace": 86_400})


def test_lists_and_details(speak: Speak) -> None:
    gateway = speak(reply("200 OK", json.dumps({"keys": [REPORT], "total": 1, "next_cursor": None}).encode()))
    done = quiver_command("keys", "list", "--state", "active", "--url", gateway.url)
    assert sent(gateway.requests[0])[0] == "GET /admin/keys?state=active"
    for word in ("alice", "1M of 1.5M/month", "60 requests", "key_1"):
        assert word in done.stdout
    gateway = speak(told())
    done = quiver_command("keys", "show", "alice", "--url", gateway.url)
    for word in ("kKMM", "58 of 60 left", "500000 of 1500000 tokens spent"):
        assert word in done.stdout
    assert json.loads(quiver_command("keys", "show", "alice", "--json", "--url", gateway.url).stdout) == REPORT


def test_missing_key_is_explained(speak: Speak) -> None:
    gateway = speak(reply("404 Not Found", envelope("not_found", "There is no key `bob`")))
    done = quiver_command("keys", "revoke", "bob", "--url", gateway.url)
    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "error: There is no key `bob` (not_found)",
        "hint: `quiver keys list` shows the keys",
    ]


@pytest.mark.parametrize(("text", "number"), [("500", 500), ("500k", 500_000), ("1.5M", 1_500_000), ("2 G", 2 * 10**9)])
def test_amounts(text: str, number: int) -> None:
    assert amount("--tokens", text) == number
    assert amount("--tokens", shown(number)) == number


def test_counts_have_blanks() -> None:
    assert many(1234567) == "1 234 567"


@pytest.mark.parametrize("text", ["", "x", "-5", "5y", "1e3", "0.0001", "0"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(SettingsError, match="`--tokens`: expected an amount"):
        amount("--tokens", text)


def test_wrong_amount_names_its_option() -> None:
    refused = quiver_command("keys", "create", "alice", "--budget", "much")
    assert refused.exit_code == 2
    assert "`--budget`: expected an amount, got `much`" in refused.stderr


def test_allowances() -> None:
    assert (allowance("--budget", "1M").tokens, allowance("--budget", "1M").period) == (1_000_000, "month")
    assert (allowance("--budget", "5k/total").tokens, allowance("--budget", "5k/total").period) == (5000, "total")
    for wrong in ("1M/year", "1M/", "/day"):
        with pytest.raises(SettingsError, match="`--budget`"):
            allowance("--budget", wrong)

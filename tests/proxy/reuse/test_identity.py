"""Which requests are the same, which may be repeated, and what their clients may say about it."""

import pytest
from quiver.proxy.reuse.identity import ALLOW_ALL, ALLOW_NOTHING, Directives, directives, identity, repeatable

BODY = b'{"model": "m", "temperature": 0, "messages": [{"role": "user", "content": "hi"}]}'
NO_STORE = Directives(share=False, store=False)


def of(body: bytes) -> bytes:
    return identity("ada", "chat/completions", body)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (BODY, BODY, True),
        (b'{"a": 1, "b": 2}', b'{"b":2,\n"a":1}', True),
        (b'{"a": {"c": 1, "d": 2}}', b'{"a": {"d": 2, "c": 1}}', True),
        (b'{"a": "\\u00e9"}', '{"a": "é"}'.encode(), True),
        (b'{"a": 1e1}', b'{"a": 10.0}', True),
        (b'{"a": [1, 2]}', b'{"a": [2, 1]}', False),
        (b'{"a": 1}', b'{"a": true}', False),
        (b'{"a": 1}', b'{"a": "1"}', False),
        (b'{"a": null}', b"{}", False),
        (b'{"a": 18446744073709551616}', b'{"a": 18446744073709551617}', False),
        (b'{"a": ""}', b'{"a": "\\u0000"}', False),
        (BODY, BODY.replace(b'"hi"', b'"hi "'), False),
        (BODY, BODY.replace(b"}]}", b'}], "stream": true}'), False),
        (BODY, BODY.replace(b"}]}", b'}], "unheard_of": 1}'), False),
        (b"not json", b"not json", True),
        (b"not json", b"not  json", False),
        (b'{"a": "\xff"}', b'{"a": "\xff"}', True),
        (b'{"a": "\xff"}', b'{"a": "\xfe"}', False),
        (b"[" * 5000 + b"]" * 5000, b"[" * 5001 + b"]" * 5001, False),
        (b'{"a": 1e999}', b'{"a": 1e998}', False),
    ],
)
def test_same_value_same_identity(one: bytes, other: bytes, expected: bool) -> None:
    assert (of(one) == of(other)) is expected


@pytest.mark.parametrize(
    ("scope", "endpoint", "expected"),
    [
        ("ada", "chat/completions", True),
        ("bob", "chat/completions", False),
        ("ada", "completions", False),
        ("adachat/", "completions", False),
        ('ada","chat/completions', "", False),
    ],
)
def test_scopes_are_kept_apart(scope: str, endpoint: str, expected: bool) -> None:
    assert (identity(scope, endpoint, BODY) == of(BODY)) is expected


def test_identity_is_short() -> None:
    assert len(of(BODY * 100)) == 32


@pytest.mark.parametrize(
    ("temperature", "seed", "n", "expected"),
    [
        (0, None, None, True),
        (0.0, None, None, True),
        (-0.0, None, None, True),
        (0, None, 4, True),
        (None, None, None, False),
        (1e-9, None, None, False),
        (1.0, None, None, False),
        (1.0, 7, None, True),
        (None, 0, None, True),
        (None, 7, 1, True),
        (None, 7, 2, False),
        (0, 7, 2, True),
    ],
)
def test_only_repeatable_requests(temperature: float | None, seed: int | None, n: int | None, expected: bool) -> None:
    assert repeatable(temperature, seed, n) is expected


@pytest.mark.parametrize(
    ("cache_control", "opt_out", "expected"),
    [
        (None, None, ALLOW_ALL),
        (b"", None, ALLOW_ALL),
        (b"no-store", None, NO_STORE),
        (b"No-Store", None, NO_STORE),
        (b"no-cache", None, Directives(read=False)),
        (b"no-cache, no-store", None, ALLOW_NOTHING),
        (b" no-cache ,\tno-store", None, ALLOW_NOTHING),
        (b"max-age=60", None, Directives(max_age=60)),
        (b"MAX-AGE=60", None, Directives(max_age=60)),
        (b'max-age="60"', None, Directives(max_age=60)),
        (b"max-age=0", None, Directives(max_age=0)),
        (b"max-age=60, max-age=5", None, Directives(max_age=5)),
        (b"max-age=soon", None, Directives(max_age=0)),
        (b"max-age=-1", None, Directives(max_age=0)),
        (b"max-age=", None, Directives(max_age=0)),
        (b"max-age", None, ALLOW_ALL),
        (b"max-age=" + b"9" * 400, None, Directives(max_age=float("inf"))),
        (b"only-if-cached", None, ALLOW_ALL),
        (b"no-transform, x-unheard-of=1,,", None, ALLOW_ALL),
        (None, b"off", ALLOW_NOTHING),
        (b"max-age=60", b" OFF ", ALLOW_NOTHING),
        (None, b"on", ALLOW_ALL),
        (None, b"", ALLOW_ALL),
    ],
)
def test_headers_say_what_is_allowed(cache_control: bytes | None, opt_out: bytes | None, expected: Directives) -> None:
    assert directives(cache_control, opt_out) == expected

"""Secrets planted in every position come out of no line: those the process knows, and those that only their form gives away."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from quiver.admin.logs.redactor import HIDDEN, MANY, REDACTOR, Redactor, names_secret
from quiver.admin.logs.setup import configure
from quiver.schemas.config import Auth, Config, Key, Log, RemoteBackend

pytestmark = pytest.mark.usefixtures("_logging_restored")

# Anything that a key may be: printable ASCII without blanks. And what a token of some service looks like.
keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=40)
tokens = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=12, max_size=40)


class Holder:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Holder({self.secret!r})"


def raising(secret: str) -> None:
    try:
        raise ValueError(f"cannot use {secret} here")
    except ValueError as error:
        raise RuntimeError("it failed") from error


def log_exception(log: Any, secret: str) -> None:
    try:
        raising(secret)
    except RuntimeError:
        log.exception("broken")


# Every position in which something can be logged.
POSITIONS: dict[str, Callable[[Any, str], None]] = {
    "message": lambda log, secret: log.info(f"with {secret} inside"),
    "argument": lambda log, secret: log.info("with %s inside", secret),
    "field": lambda log, secret: log.info("x", value=secret),
    "name": lambda log, secret: log.info("x", **{secret: 1}),
    "bytes": lambda log, secret: log.info("x", value=secret.encode()),
    "list": lambda log, secret: log.info("x", value=["a", secret]),
    "nested": lambda log, secret: log.info("x", value={"a": [{"b": (1, secret)}]}),
    "nested name": lambda log, secret: log.info("x", value={"a": {secret: 1}}),
    "set": lambda log, secret: log.info("x", value={secret}),
    "object": lambda log, secret: log.info("x", value=Holder(secret)),
    "objects": lambda log, secret: log.info("x", value=[Holder(secret)]),
    "repr": lambda log, secret: log.info("x", value=repr(secret)),
    "json": lambda log, secret: log.info("x", value=json.dumps({"a": secret})),
    "address": lambda log, secret: log.info(f"GET /x?a={quote(secret)}"),
    "quoted": lambda log, secret: log.info(f"GET /{quote(secret, safe='')}"),
    "bound": lambda log, secret: log.bind(value=secret).info("x"),
    "request id": lambda log, secret: log.info("x", request_id=secret),
    "traceback": log_exception,
    "library": lambda log, secret: logging.getLogger("lib").error("with %s inside", secret),
    "library repr": lambda log, secret: logging.getLogger("lib").error("with %r inside", [secret.encode()]),
}


def strings_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for each in value:
                yield from strings_in(each)
        case dict():
            for name, each in value.items():
                yield name
                yield from strings_in(each)


def logged(position: str, secret: str, form: Any = "json") -> str:
    stream = io.StringIO()
    configure(Log(format=form), stream)
    POSITIONS[position](structlog.get_logger(component="x"), secret)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("position", POSITIONS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(secret=keys)
def test_known_secret_comes_out_nowhere(position: str, form: Any, secret: str) -> None:
    assume(secret not in logged(position, "something else", form))  # such as `component`
    assume(secret not in HIDDEN * 2)
    REDACTOR.learn(secret)
    try:
        text = logged(position, secret, form)
    finally:
        REDACTOR.forget_all()
    assert text.count("\n") >= 1
    assert secret not in text
    assert quote(secret, safe="") not in text
    if form == "json":
        (line,) = text.splitlines()
        assert [found for found in strings_in(json.loads(line)) if secret in found] == []


# What gives a secret away when nobody knows it.
FORMS = {
    "bearer": "Bearer {}",
    "header": "Authorization: Bearer {}",
    "basic": "authorization: Basic {}",
    "key header": "X-API-Key: {}",
    "cookie": "Cookie: session={}; theme=dark",
    "set-cookie": "set-cookie: id={}; HttpOnly",
    "pairs": "[(b'host', b'x'), (b'authorization', b'Bearer {}'), (b'accept', b'*/*')]",
    "pairs of text": "[('x-api-key', '{}')]",
    "table": "{{'Authorization': 'Bearer {}', 'Accept': '*/*'}}",
    "json": '{{"api_key": "{}", "n": 1}}',
    "json in json": '{{\\"api_key\\": \\"{}\\", \\"n\\": 1}}',
    "password": "password={}",
    "spaced": "password: {}",
    "quoted": "client_secret='{}'",
    "assignment": "QUIVER_ADMIN_KEY={}",
    "repr": "RemoteBackend(url='http://x', api_key='{}')",
    "key of a struct": "Key(name='ada', key='{}')",
    "query": "GET /x?api_key={}&a=1",
    "short query": "GET /x?a=1&key={}",
    "token in query": "wss://x/y?token={}",
    "user": "http://me:{}@host/path",
    "only user": "https://{}@host/path",
    "ours": "the key qv-{}",
    "openai's": "the key sk-{}",
    "project": "Incorrect API key provided: sk-proj-{}.",
    "hugging face": "hf_{0}{0}",
    "pem": "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "cut pem": "-----BEGIN PRIVATE KEY-----\n{}",
}


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=50, deadline=None)
@given(token=tokens)
def test_form_gives_secret_away(form: str, token: str) -> None:
    assume(token[0].isalnum() and token[-1].isalnum())
    assume(form != "hugging face" or token.isalnum())
    assume(token not in FORMS[form])
    redactor = Redactor()
    text = f"before {FORMS[form].format(token)}"
    found = redactor.text(text)
    assert token not in found
    assert found.startswith("before ")
    assert redactor.text(found) == found
    nested = redactor.event({"a": [{"b": text}], "c": text.encode()})
    assert [each for each in strings_in(nested) if token in each] == []


@given(token=tokens)
def test_name_gives_value_away(token: str) -> None:
    assume(token not in "Authorization")  # which stands there as the name of a header, and stays
    fields = {
        "api_key": token, "X-Api-Key": token, "apiKey": token, "password": [token], "headers": [["Authorization", token]],
        "cookies": {"session": token}, "access_token": token.encode(), "deep": {"client_secret": {"value": token}},
    }  # fmt: skip
    assert [each for each in strings_in(Redactor().event(fields)) if token in each] == []


HARMLESS = [
    "prompt_tokens=5 completion_tokens=7 first_token=0.61",
    "server is ejected",
    "no answer to `/v1/models` within 10 s",
    "http://127.0.0.1:11434/v1",
    "Basic authentication is not supported",
    "the API key is not known to this gateway",
    "see the key figures: a task-force risk-free",
    "keys required",
    "GET /admin/keys",
    "tokens_per_minute is 100",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays(text: str) -> None:
    assert Redactor().text(text) == text
    assert Redactor().event({"a": text, "prompt_tokens": 5, "keys": 3, "tokens": [1, 2]}) == {
        "a": text,
        "prompt_tokens": 5,
        "keys": 3,
        "tokens": [1, 2],
    }


def test_configuration_tells_its_secrets() -> None:
    config = Config(
        auth=Auth(keys=("first-client-key",), admin_key="the-admin-key-itself"),
        keys=(Key(name="ada", key="the-key-of-ada"),),
        backends=(RemoteBackend(url="http://x", api_key="what-x-wants"),),
    )
    redactor = Redactor()
    redactor.learn_from(config)
    for secret in ("first-client-key", "the-admin-key-itself", "the-key-of-ada", "what-x-wants"):
        assert redactor.text(f"it is {secret}!") == f"it is {HIDDEN}!"
    assert redactor.text("ada asks http://x") == "ada asks http://x"


def test_many_secrets_are_found_too() -> None:
    redactor = Redactor()
    secrets = [f"{number:04}-of-many-secrets" for number in range(3 * MANY)]
    redactor.learn(*secrets)
    for secret in secrets:
        assert redactor.text(f"a{secret}b") == f"a{HIDDEN}b"
    assert redactor.text("nothing of the kind") == "nothing of the kind"


@pytest.mark.parametrize(
    ("name", "secret"),
    [("api_key", True), ("Authorization", True), ("dbPassword", True), ("x-api-key", True), ("admin_key_file", False),
     ("prompt_tokens", False), ("keys_required", False), ("monkey_business", False)],
)  # fmt: skip
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert names_secret(name) is secret

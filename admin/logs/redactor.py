"""Taking secrets out of what is logged: by their form, by the names they stand under, and the very ones this process knows.

Nearly all lines hold nothing of the kind. `suspects` finds that out in a microsecond or two, and only what it stops at is
taken apart. It may stop at too much, never at too little: whatever `text` or `event` would change, `suspects` stops at.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from json import dumps
from typing import Any
from urllib.parse import quote

import msgspec

HIDDEN = "[redacted]"
# A shorter text is found in ordinary words; the gateway's own keys have at least eight characters.
SHORTEST = 8
# With more known secrets than this, looking for each takes longer than looking at each place of a line.
MANY = 32

# Pieces of text, in lower case, of which one is in every line that holds a secret of a known form.
_SIGNS = (
    "key", "token", "secret", "passw", "passp", "pass=", "pass:", 'pass"', "pass'", "pass\\", "pwd", "auth", "cookie",
    "credential", "bearer", "basic", "digest", "sk-", "qv-", "hf_", "eyj", "ghp_", "gho_", "github_pat", "akia", "://",
    "-----begin", "sig",
)  # fmt: skip

# Names of fields and headers whose values are secrets, without what is neither letter nor digit.
_NAME_HAS = (
    "secret",
    "password",
    "passwd",
    "passphrase",
    "authorization",
    "cookie",
    "credential",
    "apikey",
    "privatekey",
)
_NAME_ENDS = ("key", "keys", "token", "pwd", "pass", "bearer")
_NAME = (
    r"[\w.-]*(?:api[_-]?keys?|(?:admin|client|private|access|secret|signing|encryption)[_-]?keys?|secrets?|passw(?:or)?ds?"
    r"|passphrase|pwd|tokens?|credentials?)"
)
_QUOTED = r"b?(?P<q>\\?[\"'])(?:\\.|(?!(?P=q)).)*(?P=q)"

# What was taken out before stays as it is.
_KEPT = r"(?!\[redacted\])"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.S), HIDDEN),
    # A header: in a list of pairs, in a table, or as it is sent.
    (
        re.compile(
            r"(?i)(?P<name>\b(?:(?:proxy-)?authorization|x-api-key|api-key|(?:set-)?cookie2?|x-auth-token|x-csrf-token)"
            rf"\\?[\"']?\s*[:=,]\s*+){_KEPT}(?:\[\s*+)?(?:{_QUOTED}|[^\r\n\"'\])}}]+)"
        ),
        rf"\g<name>{HIDDEN}",
    ),
    # A field whose name tells: quoted, then as one word.
    (re.compile(rf"(?i)(?P<name>\b{_NAME}\\?[\"']?\s*[:=]\s*+){_QUOTED}"), rf"\g<name>{HIDDEN}"),
    (re.compile(rf"(?i)(?P<name>\bkey\\?[\"']?\s*[:=]\s*+){_QUOTED}"), rf"\g<name>{HIDDEN}"),
    (
        re.compile(
            rf"(?i)(?P<name>\b(?!\w*tokens?\s*[:=]\s*[\d.]{{1,9}}(?:[\s,;)}}\]]|$)){_NAME}\s*[:=]\s*+)"
            rf"{_KEPT}(?!\\?[\"'])[^\s\"'&,;)}}\]]+"
        ),
        rf"\g<name>{HIDDEN}",
    ),
    (
        re.compile(rf"(?i)(?P<name>[?&;](?:key|sig|signature|auth|code)=){_KEPT}[^\s&\"'#;,)}}\]]+"),
        rf"\g<name>{HIDDEN}",
    ),
    # `Basic authentication` is none.
    (re.compile(rf"(?i)\b(?P<name>bearer)\s++{_KEPT}[^\s\"',;)}}\]]{{8,}}"), rf"\g<name> {HIDDEN}"),
    (
        re.compile(
            rf"(?i)\b(?P<name>basic|digest)\s++{_KEPT}(?=[^\s\"',;)}}\]]*[\d._~+/=-]|[^\s\"',;)}}\]]{{16}})"
            r"[^\s\"',;)}\]]{4,}"
        ),
        rf"\g<name> {HIDDEN}",
    ),
    # The user and the password of an address.
    (re.compile(rf"(?i)\b(?P<name>[a-z][a-z0-9+.-]*://){_KEPT}[^\s/\"'?#]+@"), rf"\g<name>{HIDDEN}@"),
    # Keys that tell by themselves what they are: OpenAI's and its followers', ours, Hugging Face's, GitHub's, AWS's, tokens
    # in JSON's web form.
    (re.compile(r"(?<![A-Za-z0-9])(?:sk|qv)-[A-Za-z0-9_-]{6,}"), HIDDEN),
    (re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|gh[po]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[A-Z0-9]{12,})"), HIDDEN),
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
)


class Redactor:
    """Takes secrets out of texts and events. `learn` the secrets that this process holds. May be used in any thread."""

    def __init__(self) -> None:
        self._secrets: tuple[str, ...] = ()
        self._openings: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Redactor: {len(self._secrets)} spellings of secrets>"

    def learn(self, *secrets: str | None) -> None:
        """Take these out from now on, however they are spelt. Those too short to be told from words are passed over."""
        found = dict.fromkeys(self._secrets)
        for secret in secrets:
            if secret is not None and len(secret) >= SHORTEST:
                found.update(dict.fromkeys(_spellings(secret)))
        # The longer first: one may begin like another.
        self._secrets = tuple(sorted(found, key=len, reverse=True))
        self._openings = frozenset(secret[:SHORTEST] for secret in self._secrets)

    def forget_all(self) -> None:
        """Know no secrets any more, as a new process."""
        self._secrets, self._openings = (), frozenset()

    def learn_from(self, config: msgspec.Struct) -> None:
        """Learn every secret of a configuration."""
        self.learn(*_secrets_in(msgspec.to_builtins(config)))

    def suspects(self, text: str) -> bool:
        """Whether `text` may hold a secret."""
        lowered = text.lower()
        return any([sign in lowered for sign in _SIGNS]) or self._knows_some_of(text)

    def text(self, text: str) -> str:
        """`text` without secrets."""
        if not self.suspects(text):
            return text
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text

    def event(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """`fields` without secrets: nested values, names of fields and all."""
        return {self.text(str(name)): self._field(str(name), value) for name, value in fields.items()}

    def _field(self, name: str, value: Any) -> Any:
        return _masked(value) if names_secret(name) else self._value(value)

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case bool() | int() | float() | None:
                return value
            case bytes():
                return self.text(value.decode("utf-8", "backslashreplace"))
            case Mapping():
                return self.event(value)
            case [str() | bytes() as name, str() | bytes() as held] if names_secret(_words(name)) and held:
                return [_words(name), HIDDEN]  # a header
            case list() | tuple() | set() | frozenset():
                return [self._value(each) for each in value]
            case _:
                return self.text(repr(value))

    def _knows_some_of(self, text: str) -> bool:
        secrets = self._secrets
        if len(secrets) <= MANY:
            return any([secret in text for secret in secrets])
        openings = self._openings
        return any(text[at : at + SHORTEST] in openings for at in range(len(text) - SHORTEST + 1))


@lru_cache(maxsize=4096)
def names_secret(name: str) -> bool:
    """Whether what stands under this name is a secret."""
    bare = re.sub(r"[^a-z0-9]", "", name.lower())
    return bare.endswith(_NAME_ENDS) or any(part in bare for part in _NAME_HAS)


def _masked(value: Any) -> Any:
    """Nothing of `value` but its shape. Numbers and what is empty are no secrets: `key_file` and `tokens` are counted."""
    match value:
        case bool() | int() | float() | None:
            return value
        case Mapping():
            return {str(name): _masked(held) for name, held in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_masked(each) for each in value]
        case _:
            return HIDDEN if value else value


def _words(name: str | bytes) -> str:
    return name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name


def _spellings(secret: str) -> Iterable[str]:
    """A secret as texts may hold it: as it is, in JSON, in Python's `repr`, in an address."""
    yield secret
    yield dumps(secret)[1:-1]
    yield msgspec.json.encode(secret).decode()[1:-1]
    yield repr(secret)[1:-1]
    yield repr(secret.encode())[2:-1]
    yield quote(secret, safe="")
    yield quote(secret)


def _secrets_in(value: Any, name: str = "") -> Iterable[str]:
    match value:
        case str() if names_secret(name):
            yield value
        case Mapping():
            for field, held in value.items():
                yield from _secrets_in(held, field)
        case list() | tuple():
            for each in value:
                yield from _secrets_in(each, name)
        case _:
            return


# What this process logs, and the secrets it holds: whoever makes or reads one tells it.
REDACTOR = Redactor()

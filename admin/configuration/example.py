"""A configuration file with every setting in it, each as a comment with its meaning, range and default: made from the schema.

A line that becomes a setting when its `#` goes away has no blank behind it. Uncommented altogether the file is a valid
configuration, as a test proves; settings that exclude each other, a secret and the file that holds it, are told as text.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from quiver.schemas import config
from quiver.schemas.settings import SECRETS, is_live, pattern_of, section_of

Format = Literal["toml", "yaml", "env"]

# What is shown for settings that have no default, beside what their types allow to guess.
_EXAMPLES: dict[str, Any] = {
    "auth.admin_key": "another-long-secret",
    "keys.name": "ada",
    "keys.key": "a-long-secret-of-ada",
    "keys.requests_per_minute": 60,
    "keys.tokens_per_minute": 100_000,
    "models.path": "models/qwen3-0.6b.gguf",
    "models.id": "qwen3",
    "models.threads": 4,
    "models.max_sequences": 8,
    "models.context_length": 8192,
    "models.idle_unload_s": 600.0,
    "backends.url": "http://127.0.0.1:11434",
    "backends.api_key": "the-key-it-wants",
    "backends.max_concurrency": 8,
    "backends.capabilities.context_length": 32768,
    "backends.capabilities.max_tokens": 4096,
    "engine.context_length": 8192,
    "engine.kv_memory": "2GiB",
    "engine.memory_limit": "8GiB",
    "engine.models_dir": "models",
    "join.key": "a-secret-for-joiners",
    "log.file": "/var/log/quiver/quiver.jsonl",
    "store.data_dir": "/var/lib/quiver",
    "telemetry.metrics_port": 9090,
}
_BY_TYPE: dict[Any, Any] = {
    config.ByteSize: "1GiB",
    config.HttpUrl: "http://127.0.0.1:4318",
    config.ServerName: "lab",
    str: "text",
    bool: False,
}


def example(form: Format = "toml") -> str:
    """The text of such a file."""
    head = [
        "# Quiver's configuration. Every setting is here with its default; remove the `#` from what you change.",
        "# Times are seconds, sizes bytes. File names are relative to this file. What is marked (restart) waits for one;",
        "# everything else takes effect when this file is saved.",
        "",
    ]
    writer: _Toml | _Yaml | _Env = _Toml() if form == "toml" else _Yaml() if form == "yaml" else _Env()
    lines = [*head, *(line for field in msgspec.structs.fields(config.Config) for line in writer.section("", field))]
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


class _Toml:
    """Writes TOML."""

    def section(self, above: str, field: msgspec.structs.FieldInfo) -> Iterator[str]:
        section, repeated = _section(field)
        path = above + field.encode_name
        header = f"#[[{path}]]" if repeated else f"#[{path}]" if above else f"[{path}]"
        yield from _prose(section, "")
        yield header
        nested = []
        for item in msgspec.structs.fields(section):
            if section_of(item.type)[0] is not None:
                nested.append(item)
                continue
            yield from _setting(f"{path}.{item.encode_name}", item, "", " = ")
        yield ""
        for item in nested:
            yield from self.section(f"{path}.", item)


class _Yaml:
    """Writes YAML. An entry of a list begins with a dash, and stands two columns further in."""

    def section(self, above: str, field: msgspec.structs.FieldInfo, indent: str = "") -> Iterator[str]:
        section, repeated = _section(field)
        path = above + field.encode_name
        yield from _prose(section, indent)
        yield f"{indent}{'#' if above or repeated else ''}{field.encode_name}:"
        inside = indent + ("    " if repeated else "  ")
        first = repeated
        for item in sorted(msgspec.structs.fields(section), key=lambda item: not (repeated and item.required)):
            if section_of(item.type)[0] is not None:
                yield from self.section(f"{path}.", item, inside)
                continue
            for line in _setting(f"{path}.{item.encode_name}", item, inside, ": "):
                text = line.lstrip()
                if first and text.startswith("#") and text[1:2] != " ":
                    line, first = f"{inside[:-2]}#- {text[1:]}", False
                yield line
        if not above:
            yield ""


class _Env:
    """Writes `.env`: one variable for each field, one for each list of sections."""

    def section(self, above: str, field: msgspec.structs.FieldInfo) -> Iterator[str]:
        section, repeated = _section(field)
        path, variable = above + field.encode_name, f"QUIVER_{field.encode_name.upper()}"
        yield from _prose(section, "")
        if repeated:
            required = (item for item in msgspec.structs.fields(section) if item.required)
            entry = {item.encode_name: _example(f"{path}.{item.encode_name}", item.type) for item in required}
            entry |= {"key": _EXAMPLES["keys.key"]} if path == "keys" else {}
            yield f"#{variable}={msgspec.json.encode([entry]).decode()}"
            yield ""
            return
        for item in msgspec.structs.fields(section):
            for line in _setting(f"{path}.{item.encode_name}", item, "", "="):
                name, _, value = line.removeprefix("#").partition("=")
                if line[1:2] == " ":
                    yield line
                else:
                    yield f"#{variable}__{name.upper()}={value.strip(chr(34))}"
        yield ""


def _section(field: msgspec.structs.FieldInfo) -> tuple[type[msgspec.Struct], bool]:
    section, repeated = section_of(field.type)
    assert section is not None
    return section, repeated


def _prose(section: type[msgspec.Struct], indent: str) -> Iterator[str]:
    yield f"{indent}# {' '.join(str(section.__doc__).split())}"


def _setting(path: str, field: msgspec.structs.FieldInfo, indent: str, between: str) -> Iterator[str]:
    name, pattern = field.encode_name, pattern_of(path)
    default = default_of(field)
    notes = [bounds(field.type), "unset by default" if default is None else "", "" if is_live(path) else "restart"]
    said = meaning(field.type) + (f" ({'; '.join(filter(None, notes))})" if any(notes) else "")
    if pattern.removesuffix("_file") in SECRETS and name.endswith("_file"):
        yield f"{indent}# Or `{name}`, instead of `{name.removesuffix('_file')}`: {said}"
        return
    unset = default is None or default is msgspec.NODEFAULT
    value = _example(pattern, field.type) if unset else default
    yield f"{indent}# {said}"
    yield f"{indent}#{name}{between}{msgspec.json.encode(value).decode()}"


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """A field's default; `NODEFAULT` where it is required."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def meaning(kind: Any) -> str:
    """What the schema says of a field."""
    return next((str(note.description) for note in _notes(kind) if note.description), "")


def bounds(kind: Any) -> str:
    """What a value may be, where the schema says so."""
    if choices := _choices(kind):
        return "one of " + ", ".join(choices)
    low = high = None
    for note in _notes(kind):
        low = next(
            (f"{word}{bound:g}" for word, bound in (("", note.ge), ("over ", note.gt)) if bound is not None), low
        )
        high = next((bound for bound in (note.le, note.lt) if bound is not None), high)
    if low is not None and high is not None:
        return f"{low} to {high:,}".replace(",", "")
    return f"at least {low}" if low is not None else ""


def _choices(kind: Any) -> tuple[str, ...]:
    if get_origin(kind) is Literal:
        return tuple(str(choice) for choice in get_args(kind))
    inner = get_args(kind)
    return _choices(inner[0]) if get_origin(kind) is Annotated or (inner and type(None) in inner) else ()


def _notes(kind: Any) -> Iterator[msgspec.Meta]:
    """What is noted of a type, from the outside in; not of the items of a list."""
    if get_origin(kind) is Annotated:
        yield from (note for note in kind.__metadata__ if isinstance(note, msgspec.Meta))
        yield from _notes(get_args(kind)[0])
    elif type(None) in get_args(kind):
        yield from _notes(next(inner for inner in get_args(kind) if inner is not type(None)))


def _example(pattern: str, kind: Any) -> Any:
    """A value that could stand there."""
    if pattern in _EXAMPLES:
        return _EXAMPLES[pattern]
    if choices := _choices(kind):
        return choices[0]
    while kind not in _BY_TYPE:
        if kind in (int, float):
            return _EXAMPLES.get(pattern, 8)
        kind = next((inner for inner in get_args(kind) if inner is not type(None)), str)
    return _BY_TYPE[kind]

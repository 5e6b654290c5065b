"""Secrets, and the files they may stand in: one rule for all of them, whatever they open.

Every setting that is a secret has a sibling with `_file` behind its name. The files are read here and nowhere else. Messages
name the setting, the file and the line, never what it holds.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from quiver.schemas.config import Config
from quiver.schemas.settings import is_secret, pattern_of, section_of

from .complaint import SettingsError
from .layer import Origin

# How long a key that Quiver itself asks for may be: what the schema says of those that stand in the configuration.
CLIENT_KEY = range(8, 257)
# Keys that are for somebody else's server; their length is that one's business.
FOREIGN = frozenset({"backends.api_key"})
LARGEST = 1024 * 1024


class Secrets:
    """Reads the secrets of one configuration. `files` are those it read, `warnings` what their owner should change, `errors`
    what makes them unusable, `origins` the file of each secret that came from one.
    """

    def __init__(self) -> None:
        self.files: list[Path] = []
        self.warnings: list[str] = []
        self.errors: list[SettingsError] = []
        self.origins: dict[str, Origin] = {}

    def fill(self, config: Config) -> Config:
        """`config` with the secrets that stand in files of their own."""
        filled: Config = self._section("", config)
        return filled

    def _section(self, path: str, section: Any) -> Any:
        changed: dict[str, Any] = {}
        for field in msgspec.structs.fields(section):
            here, value = f"{path}.{field.name}" if path else field.name, getattr(section, field.name)
            kind, repeated = section_of(field.type)
            if is_secret(here):
                changed[field.name] = self._secret(path, field.name, value, getattr(section, f"{field.name}_file"))
            elif repeated:
                changed[field.name] = tuple(self._section(f"{here}[{i}]", item) for i, item in enumerate(value))
            elif kind is not None:
                changed[field.name] = self._section(here, value)
        if path.startswith("keys[") and changed["key"] is None and not self._about(path):
            self.errors.append(SettingsError(f"`{path}` has no key", "set `key` or `key_file`"))
        return msgspec.structs.replace(section, **changed)

    def _about(self, path: str) -> bool:
        return any(f"`{path}" in error.message for error in self.errors)

    def _secret(self, path: str, name: str, value: Any, file: str | None) -> Any:
        try:
            return (
                self._many(path, name, value, file) if isinstance(value, tuple) else self._one(path, name, value, file)
            )
        except SettingsError as error:
            self.errors.append(error)
            return value

    def _one(self, path: str, name: str, text: str | None, file: str | None) -> str | None:
        lengths = None if pattern_of(f"{path}.{name}") in FOREIGN else CLIENT_KEY
        if text is not None and file is not None:
            raise SettingsError(f"`{path}` has both `{name}` and `{name}_file`", "keep one of them")
        if file is None:
            return None if text is None else _checked(f"{path}.{name}", text, lengths)
        self._note(f"{path}.{name}", file)
        return key_in(f"{path}.{name}_file", file, lengths)

    def _many(self, path: str, name: str, texts: tuple[str, ...], file: str | None) -> tuple[str, ...]:
        for index, key in enumerate(texts):
            if not _sendable(key):
                raise SettingsError(f"`{path}.{name}[{index}]`: expected printable ASCII characters without blanks")
        if file is None:
            return texts
        self._note(f"{path}.{name}", file)
        return (*texts, *_keys_in(f"{path}.{name}_file", file))

    def _note(self, path: str, file: str) -> None:
        self.files.append(Path(file))
        self.origins[path] = Origin("file", file)
        try:
            mode = os.stat(file).st_mode
        except OSError:
            return  # reading it says why
        if mode & stat.S_IROTH:
            self.warnings.append(f"`{file}` holds a secret, and everyone on this machine may read it; `chmod o-r` it")


def key_in(setting: str, file: str, lengths: range | None = None) -> str:
    """The one key in `file`, which `setting` names. Raises `SettingsError`."""
    return _checked(setting, _secret_text(setting, file).strip(), lengths)


def _keys_in(setting: str, file: str) -> Iterator[str]:
    """One key a line; `#` starts a comment."""
    found = False
    for number, line in enumerate(_secret_text(setting, file).splitlines(), 1):
        key, _, comment = line.strip().partition(" ")
        if not key or key.startswith("#"):
            continue
        if len(key) not in CLIENT_KEY or not _sendable(key) or (comment and not comment.lstrip().startswith("#")):
            raise SettingsError(f"{file}, line {number}: expected one key of 8 to 256 printable characters")
        found = True
        yield key
    if not found:
        raise SettingsError(f"`{setting}`: `{file}` holds no key", "write one key a line, or remove the setting")


def _checked(setting: str, key: str, lengths: range | None) -> str:
    if not _sendable(key) or (lengths is not None and len(key) not in lengths):
        long = "" if lengths is None else f"{lengths[0]} to {lengths[-1]} "
        raise SettingsError(f"`{setting}`: expected one key of {long}printable ASCII characters without blanks")
    return key


def _secret_text(setting: str, file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            return stream.read(LARGEST).decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"`{setting}`: `{file}` cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"`{setting}`: `{file}` is not text in UTF-8") from None


def _sendable(key: str) -> bool:
    """Whether `key` can stand in an HTTP field."""
    return bool(key) and all("!" <= character <= "~" for character in key)

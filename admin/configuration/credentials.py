"""Keys, and the files they may stand in: client keys, the operator's, and the gateway's keys for other servers.

The files are read here and nowhere else. Messages name the setting, the file and the line, never what it holds.
"""

from pathlib import Path

import msgspec
from quiver.schemas.config import Auth, Config, Key, RemoteBackend

from .complaint import SettingsError

# How long a key that Quiver itself asks for may be: what the schema says of those that stand in the configuration.
CLIENT_KEY = range(8, 257)


def with_secrets(config: Config) -> Config:
    """`config` with the keys that stand in files of their own. Raises `SettingsError`."""
    backends = tuple(_with_credential(index, backend) for index, backend in enumerate(config.backends))
    keys = tuple(_with_key(index, key) for index, key in enumerate(config.keys))
    key = _one_key("join", "key", config.join.key, config.join.key_file, CLIENT_KEY)
    join = msgspec.structs.replace(config.join, key=key)
    return msgspec.structs.replace(config, auth=_with_keys(config.auth), keys=keys, backends=backends, join=join)


def _with_keys(auth: Auth) -> Auth:
    for index, key in enumerate(auth.keys):
        if not _sendable(key):
            raise SettingsError(f"`auth.keys[{index}]`: expected printable ASCII characters without blanks")
    admin_key = _one_key("auth", "admin_key", auth.admin_key, auth.admin_key_file, CLIENT_KEY)
    listed = () if auth.keys_file is None else _keys_in(auth.keys_file)
    return msgspec.structs.replace(auth, keys=(*auth.keys, *listed), admin_key=admin_key)


def _keys_in(file: str) -> list[str]:
    """One key a line; `#` starts a comment."""
    keys = []
    for number, line in enumerate(_secret_text("auth.keys_file", file).splitlines(), 1):
        key, _, comment = line.strip().partition(" ")
        if not key or key.startswith("#"):
            continue
        if len(key) not in CLIENT_KEY or not _sendable(key) or (comment and not comment.lstrip().startswith("#")):
            raise SettingsError(f"{file}, line {number}: expected one key of 8 to 256 printable characters")
        keys.append(key)
    if not keys:
        raise SettingsError(f"`auth.keys_file`: `{file}` holds no key", "write one key a line, or remove the setting")
    return keys


def _with_key(index: int, key: Key) -> Key:
    place = f"keys[{index}]"
    text = _one_key(place, "key", key.key, key.key_file, CLIENT_KEY)
    if text is None:
        raise SettingsError(f"`{place}` has no key", "set `key` or `key_file`")
    return msgspec.structs.replace(key, key=text)


def _with_credential(index: int, backend: RemoteBackend) -> RemoteBackend:
    key = _one_key(f"backends[{index}]", "api_key", backend.api_key, backend.api_key_file)
    return msgspec.structs.replace(backend, api_key=key)


def _one_key(place: str, name: str, text: str | None, file: str | None, lengths: range | None = None) -> str | None:
    """The key of the section at `place`, from its field `name` or the file that `name` with `_file` names."""
    if text is not None and file is not None:
        raise SettingsError(f"`{place}` has both `{name}` and `{name}_file`", "keep one of them")
    if file is not None:
        return key_in(f"{place}.{name}_file", file, lengths)
    return None if text is None else _checked(f"{place}.{name}", text, lengths)


def key_in(setting: str, file: str, lengths: range | None = None) -> str:
    """The one key in `file`, which `setting` names. Raises `SettingsError`."""
    return _checked(setting, _secret_text(setting, file).strip(), lengths)


def _checked(setting: str, key: str, lengths: range | None) -> str:
    if not _sendable(key) or (lengths is not None and len(key) not in lengths):
        long = "" if lengths is None else f"{lengths[0]} to {lengths[-1]} "
        raise SettingsError(f"`{setting}`: expected one key of {long}printable ASCII characters without blanks")
    return key


def _secret_text(setting: str, file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"`{setting}`: `{file}` cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"`{setting}`: `{file}` is not text in UTF-8") from None


def _sendable(key: str) -> bool:
    """Whether `key` can stand in an HTTP field."""
    return bool(key) and all("!" <= character <= "~" for character in key)

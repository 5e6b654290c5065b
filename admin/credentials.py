"""Keys that stand in files of their own: client keys, and the gateway's keys for other servers.

The files are read here and nowhere else. Messages name the setting, the file and the line, never what it holds.
"""

from pathlib import Path

import msgspec
from quiver.schemas.config import Auth, Config, RemoteBackend

from .complaint import SettingsError


def with_secrets(config: Config) -> Config:
    """`config` with the keys that stand in files of their own. Raises `SettingsError`."""
    backends = tuple(_with_credential(index, backend) for index, backend in enumerate(config.backends))
    return msgspec.structs.replace(config, auth=_with_keys(config.auth), backends=backends)


def _with_keys(auth: Auth) -> Auth:
    for index, key in enumerate(auth.keys):
        if not _sendable(key):
            raise SettingsError(f"`auth.keys[{index}]`: expected printable ASCII characters without blanks")
    if auth.keys_file is None:
        return auth
    return msgspec.structs.replace(auth, keys=(*auth.keys, *_keys_in(auth.keys_file)))


def _keys_in(file: str) -> list[str]:
    """One key a line; `#` starts a comment."""
    keys = []
    for number, line in enumerate(_secret_text("auth.keys_file", file).splitlines(), 1):
        key, _, comment = line.strip().partition(" ")
        if not key or key.startswith("#"):
            continue
        if not 8 <= len(key) <= 256 or not _sendable(key) or (comment and not comment.lstrip().startswith("#")):
            raise SettingsError(f"{file}, line {number}: expected one key of 8 to 256 printable characters")
        keys.append(key)
    if not keys:
        raise SettingsError(f"`auth.keys_file`: `{file}` holds no key", "write one key a line, or remove the setting")
    return keys


def _with_credential(index: int, backend: RemoteBackend) -> RemoteBackend:
    place = f"backends[{index}]"
    if backend.api_key is not None and backend.api_key_file is not None:
        raise SettingsError(f"`{place}` has both `api_key` and `api_key_file`", "keep one of them")
    if backend.api_key_file is not None:
        key = _secret_text(f"{place}.api_key_file", backend.api_key_file).strip()
        backend = msgspec.structs.replace(backend, api_key=key)
    if backend.api_key is not None and not _sendable(backend.api_key):
        name = "api_key" if backend.api_key_file is None else "api_key_file"
        raise SettingsError(f"`{place}.{name}`: expected one key of printable ASCII characters without blanks")
    return backend


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

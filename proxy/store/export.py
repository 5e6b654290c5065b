"""The registry's rows as one JSON document: the copy beside the database that it is rebuilt from, and what `quiver db export`
writes.

The copy is renewed with every change before that is acknowledged, and it carries the digest of what it says. So it tells
when a database came back without its last changes, or with others: SQLite has no checksums of its own.
"""

import contextlib
import hashlib
import os
import sqlite3
from pathlib import Path

import msgspec
from quiver.schemas.saved import Mode

from . import registry
from .failure import Damaged
from .registry import TABLES, Table

# What the rows are written as; a file of another format is not understood.
FORMAT = 1
KIND = "quiver registrations"


class Picture(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every row of the registry at one revision, bodies as they are; `secret` in hexadecimal. `modes`: those of servers that
    are not serving.
    """

    revision: int
    secret: str
    servers: dict[str, msgspec.Raw] = {}
    keys: dict[str, msgspec.Raw] = {}
    models: dict[str, msgspec.Raw] = {}
    settings: dict[str, msgspec.Raw] = {}
    modes: dict[str, Mode] = {}

    def rows(self, table: Table) -> dict[str, msgspec.Raw]:
        rows: dict[str, msgspec.Raw] = getattr(self, table)
        return rows

    def says_as(self, other: "Picture") -> bool:
        """Whether both have the same rows."""
        same = all(_texts(self.rows(table)) == _texts(other.rows(table)) for table in TABLES)
        return same and (self.modes, self.secret) == (other.modes, other.secret)


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file that holds a picture. Without a digest it may have been edited."""

    kind: str
    format: int
    registry: msgspec.Raw
    digest: str | None = None


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Document).decode
_decode_picture = msgspec.json.Decoder(Picture).decode


def picture_of(database: sqlite3.Connection) -> Picture:
    """What the database holds now. Raises `sqlite3.Error`, `Damaged`."""
    rows = {table: {id: msgspec.Raw(body) for id, body in registry.rows(database, table)} for table in TABLES}
    modes: dict[str, Mode] = {id: mode for id, mode in registry.modes(database).items() if mode != "serving"}
    revision, secret = registry.meta(database, "revision"), registry.meta(database, "secret")
    if not isinstance(revision, int) or not isinstance(secret, bytes):
        raise Damaged("it has lost its revision or its secret")
    return Picture(revision, secret.hex(), **rows, modes=modes)


def written(picture: Picture, *, sealed: bool) -> bytes:
    """`picture` as a file's content. `sealed`: on one line, with its digest; else for people."""
    content = _encode(picture)
    _decode_picture(content)  # a broken row must not spoil the copy of the others
    if sealed:
        return _encode(Document(KIND, FORMAT, msgspec.Raw(content), _digest(content))) + b"\n"
    return msgspec.json.format(_encode(Document(KIND, FORMAT, msgspec.Raw(content))), indent=2) + b"\n"


def read(content: bytes) -> Picture:
    """The picture in a file's content. Raises `Damaged`, `msgspec.ValidationError` with the place at fault."""
    try:
        document = _decode(content)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        raise Damaged(f"it is not JSON: {error}") from None
    if document.kind != KIND or document.format != FORMAT:
        raise Damaged("it is no export of this version of Quiver")
    if document.digest is not None and document.digest != _digest(bytes(document.registry)):
        raise Damaged("it was changed after it was written")
    return _decode_picture(document.registry)


def replace(path: Path, content: bytes) -> None:
    """Put `content` in the place of the file, on the disk once this returns; nobody sees a part of it. Raises `OSError`."""
    temporary = path.with_name(f"{path.name}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system can open folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _texts(rows: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    return {id: bytes(body) for id, body in rows.items()}

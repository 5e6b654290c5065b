"""`.env` in the working directory: variables for whoever has no other place for them. The real environment overrides them."""

import io
from pathlib import Path

import msgspec
from dotenv.parser import Binding, parse_stream

from .complaint import SettingsError

FILE = ".env"
PREFIX = "QUIVER_"


class DotEnv(msgspec.Struct, frozen=True):
    """Quiver's variables in `.env`, each with the line it stands in. `file` is None where there is none."""

    file: Path | None = None
    values: dict[str, str] = {}
    lines: dict[str, int] = {}


def read_dotenv() -> DotEnv:
    """The variables whose names begin with `QUIVER_`, of `.env` in the working directory. Nothing is put into the
    environment. Raises `SettingsError` when the file cannot be read.
    """
    file = Path(FILE)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return DotEnv()
    except OSError as error:
        raise SettingsError(f"`{file}` cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"`{file}` is not text in UTF-8") from None
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            raise SettingsError(f"{file}, line {_line(binding)}: expected `NAME=value`")
        if binding.key is not None and binding.key.startswith(PREFIX):
            values[binding.key], lines[binding.key] = binding.value or "", _line(binding)
    return DotEnv(file, values, lines)


def _line(binding: Binding) -> int:
    """A binding begins with the blank lines ahead of it."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")

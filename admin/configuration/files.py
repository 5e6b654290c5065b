"""Reading files of settings: which one counts, in which format it is, and its text."""

from pathlib import Path

from . import toml_file, yaml_file
from .complaint import SettingsError
from .layer import Layer, Origin
from .paths import anchored

DEFAULT_FILES = ("quiver.toml", "quiver.yaml", "quiver.yml")
# Nobody writes so much; a wrong file must not be read whole.
LARGEST = 4 * 1024 * 1024


def default_file() -> Path | None:
    """The configuration file of the working directory, if there is one. Raises `SettingsError` for several."""
    found = [file for name in DEFAULT_FILES if (file := Path(name)).exists()]
    if len(found) > 1:
        names = " and ".join(f"`{file}`" for file in found)
        raise SettingsError(f"there are {names}", "keep one of them, or name it with --config")
    return found[0] if found else None


def read_layer(file: Path) -> Layer:
    """The settings in one file, TOML unless its name ends in `.yaml` or `.yml`. File names in it are relative to its folder.
    Raises `SettingsError`.
    """
    text = text_of(file)
    if file.suffix.lower() in (".yaml", ".yml"):
        tree, places = yaml_file.parse(file, text)
    else:
        tree, places = toml_file.parse(file, text), toml_file.places(text)
    return Layer(Origin("file", str(file)), anchored(tree, file.parent), places)


def text_of(file: Path) -> str:
    """The text of a configuration file. Raises `SettingsError`."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
        if len(raw) > LARGEST:
            raise SettingsError(f"`{file}` is no configuration: it is over {LARGEST // 2**20} MiB")
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"there is no configuration file `{file}`") from None
    except OSError as error:
        raise SettingsError(f"`{file}` cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"`{file}` is not text in UTF-8") from None

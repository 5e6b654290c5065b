"""The example has every setting, says nothing as it is, and is right when all of it is uncommented."""

import re
from pathlib import Path

import msgspec
import pytest
from quiver.admin.configuration.example import Format, example
from quiver.admin.configuration.settings import Sources
from quiver.schemas.config import Config
from quiver.schemas.settings import SECRETS, pattern_of, section_of


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def settings(path: str, section: type[msgspec.Struct]) -> set[str]:
    """Every setting's path, but for the files that secrets may stand in instead."""
    found = set()
    for field in msgspec.structs.fields(section):
        here = f"{path}.{field.encode_name}" if path else field.encode_name
        inner, _ = section_of(field.type)
        if inner is not None:
            found |= settings(here, inner)
        elif here.removesuffix("_file") not in SECRETS or not here.endswith("_file"):
            found.add(here)
    return found


@pytest.mark.parametrize("form", ["toml", "yaml"])
def test_example_says_nothing(form: Format) -> None:
    file = Path(f"quiver.{form}")
    file.write_text(example(form))
    assert Sources(file, environ={}).read().config == Config()


@pytest.mark.parametrize("form", ["toml", "yaml"])
def test_uncommented_example_is_right(form: Format) -> None:
    file = Path(f"quiver.{form}")
    file.write_text(re.sub(r"(?m)^(\s*)#(\S)", r"\1\2", example(form)))
    found = Sources(file, environ={}).read()
    assert {pattern_of(path) for path in found.origins} >= {
        path for path in settings("", Config) if not path.startswith("backends.capabilities.")
    }
    assert found.config.backends[0].capabilities.max_tokens == 4096


def test_variables_of_the_example_are_right() -> None:
    Path(".env").write_text(example("env"))
    assert Sources(environ={}).read().config == Config()
    Path(".env").write_text(re.sub(r"(?m)^#(\S)", r"\1", example("env")))
    found = Sources(environ={}).read()
    sections = {path for path in settings("", Config) if path.partition(".")[0] not in ("keys", "models", "backends")}
    assert {pattern_of(path) for path in found.origins} >= sections
    assert [key.name for key in found.config.keys] == ["ada"]


def test_ranges_and_choices_are_told() -> None:
    text = example()
    for line in (
        "(0 to 65535; restart)",
        "(one of critical, high, normal, low)",
        "(over 0 to 86400)",
        "unset by default",
    ):
        assert line in text

"""Keys in files of their own."""

from pathlib import Path

import pytest
from quiver.admin.complaint import SettingsError
from quiver.admin.settings import load

EXPECTED = "expected one key of 8 to 256 printable characters"
BACKEND_EXPECTED = "`backends[0].api_key_file`: expected one key of printable ASCII characters without blanks"

KEY_FILES: list[tuple[str, tuple[str, ...] | str]] = [
    ("first-key\nsecond-key\n", ("first-key", "second-key")),
    ("# our keys\n\n  first-key  # Ada\nsecond-key\r\n", ("first-key", "second-key")),
    ("\ufefffirst-key", ("first-key",)),
    ("key#with#signs", ("key#with#signs",)),
    ("", "`auth.keys_file`: `keys` holds no key"),
    ("# none\n\n", "`auth.keys_file`: `keys` holds no key"),
    ("first-key\nshort\n", f"keys, line 2: {EXPECTED}"),
    ("two keys-here\n", f"keys, line 1: {EXPECTED}"),
    ("schlüssel-eins\n", f"keys, line 1: {EXPECTED}"),
    ("x" * 257, f"keys, line 1: {EXPECTED}"),
]

CREDENTIAL_FILES: list[tuple[str, str | None]] = [
    ("a-key", "a-key"),
    ("a-key\r\n", "a-key"),
    ("", None),
    ("one\ntwo\n", None),
    ("blank inside", None),
]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("text", "expected"), KEY_FILES)
def test_keys_file_is_read(text: str, expected: tuple[str, ...] | str) -> None:
    Path("keys").write_text(text, encoding="utf-8", newline="")
    environ = {"QUIVER_AUTH__KEYS_FILE": "keys"}
    if isinstance(expected, tuple):
        assert load(environ=environ).auth.keys == expected
        return
    with pytest.raises(SettingsError) as caught:
        load(environ=environ)
    assert caught.value.message == expected


def test_both_sources_of_keys_count() -> None:
    Path("keys").write_text("from-file")
    config = load(environ={"QUIVER_AUTH__KEYS_FILE": "keys", "QUIVER_AUTH__KEYS": '["from-list"]'})
    assert config.auth.keys == ("from-list", "from-file")


@pytest.mark.parametrize(("text", "key"), CREDENTIAL_FILES)
def test_credential_file_holds_one_key(text: str, key: str | None) -> None:
    Path("credential").write_text(text, newline="")
    environ = {"QUIVER_BACKENDS": '[{"url": "http://h:1", "api_key_file": "credential"}]'}
    if key is not None:
        assert load(environ=environ).backends[0].api_key == key
        return
    with pytest.raises(SettingsError) as caught:
        load(environ=environ)
    assert caught.value.message == BACKEND_EXPECTED

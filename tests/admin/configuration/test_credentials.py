"""Keys in files of their own."""

from pathlib import Path

import pytest
from quiver.admin.configuration.complaint import SettingsError
from quiver.admin.configuration.settings import load

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


CLIENT_KEY_FILES: list[tuple[str, str | None]] = [
    ("the-key-of-ada", "the-key-of-ada"),
    ("the-key-of-ada\r\n", "the-key-of-ada"),
    ("\ufeffthe-key-of-ada", "the-key-of-ada"),
    ("", None),
    ("short", None),
    ("x" * 257, None),
    ("one-long-key\nand-another\n", None),
    ("schlüssel-eins", None),
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
    assert caught.value.message.removeprefix("environment variable QUIVER_AUTH__KEYS_FILE: ") == expected


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
    assert caught.value.message == f"environment variable QUIVER_BACKENDS: {BACKEND_EXPECTED}"


@pytest.mark.parametrize(("text", "key"), CLIENT_KEY_FILES)
@pytest.mark.parametrize(
    ("environ", "setting"),
    [
        ({"QUIVER_KEYS": '[{"name": "ada", "key_file": "key"}]'}, "keys[0].key_file"),
        ({"QUIVER_AUTH__ADMIN_KEY_FILE": "key"}, "auth.admin_key_file"),
    ],
)
def test_key_file_holds_one_key(environ: dict[str, str], setting: str, text: str, key: str | None) -> None:
    Path("key").write_text(text, encoding="utf-8", newline="")
    if key is not None:
        config = load(environ=environ)
        assert (config.keys[0].key if config.keys else config.auth.admin_key) == key
        return
    with pytest.raises(SettingsError) as caught:
        load(environ=environ)
    expected = "expected one key of 8 to 256 printable ASCII characters without blanks"
    assert caught.value.message == f"environment variable {next(iter(environ))}: `{setting}`: {expected}"


def test_missing_key_file_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        load(environ={"QUIVER_KEYS": '[{"name": "ada", "key_file": "gone"}]'})
    assert caught.value.message == (
        "environment variable QUIVER_KEYS: `keys[0].key_file`: `gone` cannot be read: No such file or directory"
    )


def test_configuration_shows_no_key() -> None:
    environ = {
        "QUIVER_AUTH__KEYS": '["plain-secret"]',
        "QUIVER_AUTH__ADMIN_KEY": "admin-secret",
        "QUIVER_KEYS": '[{"name": "ada", "key": "named-secret"}]',
        "QUIVER_BACKENDS": '[{"url": "http://h:1", "api_key": "upstream-secret"}]',
    }
    assert "secret" not in repr(load(environ=environ))

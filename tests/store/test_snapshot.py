"""What the fast paths read of a session, and that whatever is unusual is left to the ordinary ones.

That also in the real process: in the one of the tests ``json`` has long been imported, and its C part
behaves otherwise then.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from examples import PROFILE
from program import Program
from sessions import write_session

from cells_loopback.errors import StoreError
from cells_loopback.store.profile_document import encode_profile
from cells_loopback.store.snapshot import (
    NOT_PLAIN,
    Unusual,
    check_plain_config,
    find_profile_path,
    read_plain_default_profile,
    read_snapshot,
)

if TYPE_CHECKING:
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="names are not plain on Windows")

DAMAGED = {
    "an-open-brace": "{",
    "no-colon": '{"version" 1}',
    "no-comma": '{"version": 1 "site": ""}',
    "an-open-string": '{"version": 1, "site": "https',
    "a-half-escape": '{"version": 1, "site": "\\u12',
    "an-open-list": "[1,",
    "a-half-word": "nul",
    "nothing": "",
    "two-documents": "{} {}",
    "another-kind": "[]",
}
COMMANDS = {
    "token": ("token", "-p", "work"),
    "s3-credentials": ("-p", "work", "s3", "credentials"),
    "login": ("login", "-p", "work"),
}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    program = Program(tmp_path)
    write_session(program.config_dir, replace(PROFILE, name="work"))
    return program


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_session_is_told_with_its_path(program: Program, text: str) -> None:
    path = program.profile_path("work")
    path.write_text(text)
    done = program.run("token", "-p", "work")
    assert (done.returncode, done.stdout) == (8, "")
    assert done.stderr.startswith(f"error: {path} is damaged\nhint: ")
    assert path.read_text() == text


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_command_with_a_fast_path_tells_it_alike(program: Program, command: tuple[str, ...]) -> None:
    program.profile_path("work").write_text("{")
    done = program.run(*command)
    assert done.returncode == 8
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


# Which profile


@POSIX
@pytest.mark.parametrize(
    "name",
    [
        "work", "files.example.com", "files.example.com:8443", "0", "A-b_c", "a" * 100, "console", "com10",
    ],
)  # fmt: skip
def test_a_plain_name_is_its_files_name(name: str) -> None:
    assert find_profile_path("/config", name) == f"/config/profiles/{name}.json"


@pytest.mark.parametrize(
    "name",
    [
        ".", "..", ".hidden", "-p", "_a", ":a", "a/b", "a b", "ü", "a@b", "[::1]", "a" * 101, "a.",
        "con", "NUL", "com1", "Lpt9.txt", "lpt", "nul_",
    ],
)  # fmt: skip
def test_a_name_that_needs_thought_is_unusual(name: str) -> None:
    with pytest.raises(Unusual):
        find_profile_path("/config", name)


@POSIX
def test_a_named_profile_comes_before_the_environment_and_that_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.toml").write_text('default_profile = "chosen"\n')
    assert find_profile_path(str(tmp_path), None).endswith("/profiles/chosen.json")
    monkeypatch.setenv("CELLS_LOOPBACK_PROFILE", "env")
    assert find_profile_path(str(tmp_path), None).endswith("/profiles/env.json")
    assert find_profile_path(str(tmp_path), "named").endswith("/profiles/named.json")


CHOOSING = {
    "alone": 'default_profile = "work"',
    "among comments": '# mine\n\n  \ndefault_profile = "work"  \nstore = "keyring"\n',
    "of windows": '# mine\r\ndefault_profile = "work"\r\n',
}


@pytest.mark.parametrize("text", CHOOSING.values(), ids=CHOOSING)
def test_the_default_profile_is_found_among_the_first_plain_lines(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode())
    assert read_plain_default_profile(str(tmp_path)) == "work"


NOT_CHOOSING = {
    "nothing": "",
    "only comments": "# mine\n",
    "another line first": 'store = "file"\ndefault_profile = "work"\n',
    "an empty name": 'default_profile = ""\n',
    "no name": "default_profile = \n",
    "half a string": 'default_profile = "work\n',
    "only a quote": 'default_profile = "\n',
    "a literal string": "default_profile = 'work'\n",
    "an escape": 'default_profile = "wo\\u0072k"\n',
    "two strings": 'default_profile = "a" "b"\n',
    "a comment behind it": 'default_profile = "work" # mine\n',
    "a string over lines": 'default_profile = "work"\nx = """\n"""\n',
    "a literal string over lines": "default_profile = \"work\"\nx = '''\n'''\n",
    "no UTF-8": b"# \xff\n".decode("latin-1"),
}


@pytest.mark.parametrize("text", NOT_CHOOSING.values(), ids=NOT_CHOOSING)
def test_a_config_file_that_chooses_otherwise_is_left_to_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(NOT_PLAIN):
        read_plain_default_profile(str(tmp_path))


PLAIN = {
    "nothing": "",
    "a choice": '# mine\n\ndefault_profile = "work"\n',
    "of windows": '# mine\r\n\r\ndefault_profile = "work"\r\n',
    "just not too long": "#" * 60_000,
}
NOT_PLAIN_AT_ALL = {
    "a preference": 'store = "keyring"\n',
    "a preference behind a choice": 'default_profile = "work"\nstore = "keyring"\n',
    "a table": "[login]\n",
    "two choices": 'default_profile = "a"\ndefault_profile = "b"\n',
    "a name that needs thought": 'default_profile = "a b"\n',
    "a name that begins oddly": 'default_profile = "/b"\n',
    "a name that ends oddly": 'default_profile = "a/"\n',
    "a literal string": "default_profile = 'work'\n",
    "a space in front": " # mine\n",
    "a control character": "# \x07\n",
    "too long": "#" * 60_001,
}


@pytest.mark.parametrize("text", PLAIN.values(), ids=PLAIN)
def test_a_config_file_without_preferences_is_plain(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode())
    check_plain_config(str(tmp_path))


def test_no_config_file_is_plain_too(tmp_path: Path) -> None:
    check_plain_config(str(tmp_path))


@pytest.mark.parametrize("text", NOT_PLAIN_AT_ALL.values(), ids=NOT_PLAIN_AT_ALL)
def test_any_other_config_file_is_not(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.toml").write_bytes(text.encode())
    with pytest.raises(Unusual):
        check_plain_config(str(tmp_path))


# The session


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_session(tmp_path, replace(PROFILE, name="work"))
    return tmp_path / "profiles" / "work.json"


def test_a_snapshot_is_the_whole_document(path: Path) -> None:
    assert read_snapshot(str(path)) == json.loads(path.read_text())
    path.write_text(path.read_text() + " \n\t\n")
    assert read_snapshot(str(path))["site"] == "https://files.example.com"


OTHER: dict[str, dict[str, Any]] = {
    "another version": {"version": 2},
    "the keyring": {"settings": {"store": "keyring"}},
    "no store": {"settings": {}},
    "a site that is a number": {"site": 7},
    **{
        f"{part} that is none": {part: []}
        for part in ("user", "client", "metadata", "token", "settings", "renewals")
    },
}


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER)
def test_another_document_is_left_to_others(path: Path, changes: dict[str, Any]) -> None:
    path.write_text(json.dumps({**encode_profile(PROFILE), **changes}))
    with pytest.raises(NOT_PLAIN):
        read_snapshot(str(path))


def test_a_line_break_within_a_string_is_left_to_others(path: Path) -> None:
    path.write_text(path.read_text().replace("alice", "ali\nce"))
    with pytest.raises(NOT_PLAIN):
        read_snapshot(str(path))


def test_what_follows_the_document_is_left_to_others(path: Path) -> None:
    path.write_text(path.read_text() + "{}")
    with pytest.raises(Unusual):
        read_snapshot(str(path))


@POSIX
def test_file_and_directory_are_checked_like_any_other(path: Path) -> None:
    os.chmod(path, 0o640)
    with pytest.raises(StoreError, match="can be read by others"):
        read_snapshot(str(path))
    os.chmod(path, 0o600)
    os.chmod(path.parent, 0o770)
    with pytest.raises(StoreError, match="can be written by others"):
        read_snapshot(str(path))

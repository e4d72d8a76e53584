"""The config directory is where platformdirs says, although platformdirs is not imported to know it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import platformdirs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cells_loopback.errors import StoreError
from cells_loopback.store.config_dir import APP_NAME, find_config_dir

if TYPE_CHECKING:
    from pathlib import Path

PIECES = st.sampled_from(
    ["/", "//", "~", "~root", ".", "..", "a", "b c", "ü", "$HOME", "{}", ".config", " ", "\t"]
)
PATHS = st.lists(PIECES, max_size=5).map("".join)
ENVIRONMENTS = st.fixed_dictionaries(
    {},
    optional={"HOME": PATHS, "XDG_CONFIG_HOME": PATHS, "XDG_CONFIG_DIRS": PATHS, "APPDATA": PATHS},
)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the current directory from being removed")
def test_a_relative_one_in_a_directory_that_is_gone_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(StoreError, match="no longer exists") as caught:
        find_config_dir("sessions")
    assert "absolute path" in caught.value.hint


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ENVIRONMENTS)
def test_in_any_environment_it_is_what_platformdirs_says(environment: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "APPDATA"):
            patch.delenv(name, raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        try:
            expected = platformdirs.user_config_dir(APP_NAME)
        except RuntimeError:  # of platformdirs 4.12.4, the last one for Python 3.10, where HOME is no path
            with pytest.raises(StoreError):
                find_config_dir()
        else:
            assert find_config_dir() == expected


def test_where_no_home_is_known_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setenv("HOME", "~")
    monkeypatch.setattr(platformdirs, "user_config_dir", fail)
    with pytest.raises(StoreError) as caught:
        find_config_dir()
    assert "HOME" in caught.value.hint


NAMED = {
    "nothing set": {},
    "a home": {"HOME": "/home/alice"},
    "a home with a slash": {"HOME": "/home/alice/"},
    "the root as home": {"HOME": "/"},
    "two slashes as home": {"HOME": "//"},
    "an empty home": {"HOME": ""},
    "a relative home": {"HOME": "alice"},
    "XDG": {"HOME": "/home/alice", "XDG_CONFIG_HOME": "/srv/config"},
    "XDG with a slash": {"HOME": "/home/alice", "XDG_CONFIG_HOME": "/srv/config/"},
    "an empty XDG": {"HOME": "/home/alice", "XDG_CONFIG_HOME": ""},
    "XDG of spaces": {"HOME": "/home/alice", "XDG_CONFIG_HOME": "  "},
    "a relative XDG": {"HOME": "/home/alice", "XDG_CONFIG_HOME": "config"},
    "XDG with a tilde": {"HOME": "/home/alice", "XDG_CONFIG_HOME": "~/config"},
    "XDG with a space at its end": {"HOME": "/home/alice", "XDG_CONFIG_HOME": "/srv/config "},
}


@pytest.mark.parametrize("environment", NAMED.values(), ids=NAMED)
def test_each_known_trap_too(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_config_dir() == platformdirs.user_config_dir(APP_NAME)


def test_the_option_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(tmp_path / "variable"))
    assert find_config_dir(str(tmp_path / "option")) == str(tmp_path / "option")
    assert find_config_dir() == str(tmp_path / "variable")
    assert find_config_dir("") == str(tmp_path / "variable")


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", "")
    assert find_config_dir() == platformdirs.user_config_dir(APP_NAME)


def test_a_relative_place_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config_dir("here") == str(tmp_path / "here")
    assert find_config_dir("./x/../here/") == str(tmp_path / "here")


def test_a_tilde_is_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert find_config_dir("~/here") == str(tmp_path / "here")


def test_an_environment_may_be_handed_in() -> None:
    assert find_config_dir(environ={"CELLS_LOOPBACK_CONFIG_DIR": "/srv/cells"}) == os.path.abspath(
        "/srv/cells"
    )


@pytest.mark.skipif(sys.platform != "linux", reason="written out for Linux only")
def test_the_plain_case_imports_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); from cells_loopback.store.config_dir import find_config_dir;"
        "find_config_dir(); print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    names = {"__future__", "cells_loopback", "cells_loopback.store", "cells_loopback.store.config_dir"}
    assert set(done.stdout.split()) <= names

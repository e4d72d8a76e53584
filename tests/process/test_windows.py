"""What Windows is asked: by programs that nobody can put in their place, for one user and nobody else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cells_loopback.process.windows import find_on_path, read_sid, restrict_command, system_program

if TYPE_CHECKING:
    from pathlib import Path

ALICE = "S-1-5-21-397955417-626881126-188441444-1001"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("icacls", r"C:\WINDOWS\System32\icacls.exe"),
        ("powershell", r"C:\WINDOWS\System32\WindowsPowerShell\v1.0\powershell.exe"),
    ],
)
def test_a_program_of_the_system_is_not_looked_for_in_the_current_directory(name: str, path: str) -> None:
    assert system_program(name, "win32", {"SYSTEMROOT": r"C:\WINDOWS"}) == path
    assert system_program(name, "win32", {}).casefold() == path.casefold()
    assert system_program(name, "linux", {}) == name  # from WSL it is another system's


def test_a_bare_name_is_looked_for_on_the_path_and_never_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "downloads", tmp_path / "programs"
    for directory in (here, there):
        directory.mkdir()
        (directory / "chrome.exe").touch()
    monkeypatch.chdir(here)
    (here / "firefox.exe").touch()
    environ = {"PATH": f"{tmp_path / 'none'}{os.pathsep}{os.pathsep}{there}", "PATHEXT": ".com;.exe"}
    assert find_on_path("chrome", environ) == find_on_path("chrome.exe", environ) == str(there / "chrome.exe")
    assert find_on_path("chrome", {**environ, "PATHEXT": ".com;.exe;"}) == str(there / "chrome.exe")
    assert find_on_path("firefox", environ) is None
    assert find_on_path("firefox.exe", {}) is None
    assert find_on_path(os.path.join(os.curdir, "firefox"), environ) == os.path.join(os.curdir, "firefox.exe")
    assert find_on_path(str(here / "firefox.exe"), {}) == str(here / "firefox.exe")
    assert find_on_path(str(here / "opera.exe"), environ) is None


@pytest.mark.parametrize(
    ("output", "sid"),
    [
        (f'"desktop-1\\alice","{ALICE}"\r\n', ALICE),
        ('"odd "name"","S-1-5-18"\n', "S-1-5-18"),
        ("ERROR: Access is denied.\n", ""),
        ("", ""),
    ],
)
def test_the_user_is_known_by_what_no_other_user_has(output: str, sid: str) -> None:
    assert read_sid(output) == sid


def test_a_directory_is_for_its_user_and_nobody_else() -> None:
    assert restrict_command(r"C:\Users\alice\config", ALICE) == [
        "icacls", r"C:\Users\alice\config", "/inheritance:r", "/grant:r", f"*{ALICE}:(OI)(CI)F",
    ]  # fmt: skip

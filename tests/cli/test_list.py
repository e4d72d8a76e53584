"""``list``: a line for each profile, the default one marked."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from examples import PROFILE
from sessions import write_session

from cells_loopback.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_default_profile_is_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("home", "work"):
        write_session(tmp_path, replace(PROFILE, name=name))
    assert main(["--config-dir", str(tmp_path), "use", "work"]) == 0
    assert main(["--config-dir", str(tmp_path), "list"]) == 0
    assert capsys.readouterr().out == "  home\n* work\n"


def test_without_a_choice_among_several_none_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("home", "work"):
        write_session(tmp_path, replace(PROFILE, name=name))
    (tmp_path / "config.toml").unlink(missing_ok=True)
    assert main(["--config-dir", str(tmp_path), "list"]) == 0
    assert capsys.readouterr().out == "  home\n  work\n"


def test_where_there_is_none_the_way_to_one_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--config-dir", str(tmp_path), "list"]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "no profiles yet: cells-loopback login SITE\n")

"""What `login` does before and after the login itself, which `tests/logins` is about."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from cells_loopback.cli import login, main

if TYPE_CHECKING:
    from pathlib import Path


def test_who_reads_the_events_hears_of_a_defect_too_but_not_what_it_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("open-sesame")

    monkeypatch.setattr(login, "_log_in_as_asked", fail)
    assert main(["login", "files.example.com", "--json"]) == 1
    out, err = capsys.readouterr()
    event = json.loads(out)
    assert (event["event"], event["exit_code"]) == ("error", 1)
    assert "RuntimeError" in event["message"]
    assert "open-sesame" not in out + err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the current directory from being removed")
def test_a_relative_file_in_a_directory_that_is_gone_is_wrong_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["login", "files.example.com", "--ca-bundle", "ca.pem"]) == 2
    assert "hint: give an absolute path in place of ca.pem" in capsys.readouterr().err

"""Who logged in, whatever the server calls them."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from examples import PROFILE
from sessions import write_session

from cells_loopback import cli
from cells_loopback.clock import uptime, wall
from cells_loopback.store.profiles import User

if TYPE_CHECKING:
    from pathlib import Path

# What a terminal obeys or does not show, what UTF-8 cannot say, and what only some streams can.
ODD = "al\x1b[2Jice \x9b31m \u202e \ud83d \u0141"


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    tokens = replace(PROFILE.tokens, obtained_at=wall(), obtained_uptime=uptime())
    user = User("1", ODD, {"name": ODD})
    write_session(tmp_path / "config", replace(PROFILE, user=user, tokens=tokens))
    return tmp_path / "config"


@pytest.mark.parametrize("command", ["whoami", "status"])
def test_as_json_a_name_comes_out_as_it_is_and_steers_no_terminal(
    config_dir: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main([command, "--json", "--config-dir", str(config_dir)]) == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    answer = json.loads(out)
    assert (answer["name"] if command == "whoami" else answer[0]["user"]) == ODD


def test_a_name_that_the_stream_cannot_hold_is_spelled_out(
    config_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", stream)
    assert cli.main(["whoami", "--config-dir", str(config_dir)]) == 0
    stream.seek(0)
    assert stream.read() == "al\\x1b[2Jice \\x9b31m \\u202e \\ud83d \\u0141\n"

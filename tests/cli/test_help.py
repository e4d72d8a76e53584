"""``--help`` and ``--version``: on a terminal, through a pipe, and the same on every Python."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from program import Program, finish

from cells_loopback import __version__
from cells_loopback.cli import COMMANDS, make_overview, make_parser

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_terminal_and_teaches_by_example(command: str) -> None:
    text = (make_parser(command) if command else make_overview()).format_help()
    assert text.startswith(f"usage: cells-loopback {command}".rstrip())
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert f"\n  cells-loopback {command}".rstrip() in text
    assert "\n  -p, --profile NAME " in text


@pytest.mark.parametrize("size", [os.terminal_size((0, 0)), OSError()], ids=["unset", "no-terminal"])
def test_a_terminal_that_does_not_know_its_size_has_eighty_columns(
    monkeypatch: pytest.MonkeyPatch, size: os.terminal_size | OSError
) -> None:
    def get_terminal_size(_fd: int) -> os.terminal_size:
        if isinstance(size, OSError):
            raise size
        return size

    monkeypatch.setattr(os, "get_terminal_size", get_terminal_size)
    assert max(map(len, make_overview().format_help().splitlines())) > 70


@pytest.mark.parametrize("command", ["", "login"])
def test_help_is_plain_text_on_every_python(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in (make_parser(command) if command else make_overview()).format_help()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["--help"], ["token", "--help"], ["--version"]], ids=" ".join)
def test_it_is_no_success_when_stdout_does_not_take_it(
    arguments: list[str], unbuffered: str, tmp_path: Path
) -> None:
    program = Program(tmp_path)
    into_full = ["sh", "-c", 'exec "$@" >/dev/full', "sh"]
    environment = {"PYTHONUNBUFFERED": unbuffered}
    done = finish(program.start(*arguments, under=into_full, environment=environment))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "error: cannot write the result: No space left on device"


@pytest.mark.parametrize("arguments", [["--help"], ["token", "--help"], ["--version"]], ids=" ".join)
def test_it_reaches_a_pipe_whole(arguments: list[str], tmp_path: Path) -> None:
    done = Program(tmp_path).run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    if arguments == ["--version"]:
        assert done.stdout == f"cells-loopback {__version__}\n"
    else:
        parser = make_parser(arguments[0]) if len(arguments) > 1 else make_overview()
        assert done.stdout == parser.format_help()

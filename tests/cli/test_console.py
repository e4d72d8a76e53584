"""What is said on the two streams, and a stdout that takes nothing."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest

from cells_loopback import cli
from cells_loopback.cli.console import Console
from cells_loopback.errors import CellsLoopbackError


def test_a_stream_without_some_characters_gets_them_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "cp1252", newline="\n"))
    Console().result("caf\u00e9 \u738b")
    assert written.getvalue() == b"caf\xe9 \\u738b\n"


class Full(io.StringIO):
    def flush(self) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("stdout", [None, Full()], ids=["closed", "full"])
def test_a_result_that_nobody_gets_is_an_error_of_two_lines(
    monkeypatch: pytest.MonkeyPatch, stdout: Full | None
) -> None:
    monkeypatch.setattr(sys, "stdout", stdout)
    for write in (lambda: Console().result("text"), lambda: Console().raw_result(b"bytes")):
        with pytest.raises(CellsLoopbackError, match="cannot write the result: ") as error:
            write()
        assert error.value.hint


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("arguments", "environment", "coloured"),
    [
        (["--bogus"], {}, True),
        (["--bogus", "--no-color"], {}, False),
        (["--no-color", "list", "--bogus"], {}, False),
        (["--bogus"], {"NO_COLOR": "1"}, False),
        (["--bogus"], {"TERM": "dumb"}, False),
    ],
)
def test_an_error_is_coloured_unless_somebody_does_not_want_it(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], environment: dict[str, str], coloured: bool
) -> None:
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "terminate_on_signals", lambda: None)
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert cli.main(arguments) == 2
    assert ("\x1b[" in terminal.getvalue()) is coloured
    assert "error:" in terminal.getvalue()

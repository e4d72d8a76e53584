"""The manual page: as the program says it, and as man shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from requires import require_program

from cells_loopback.cli import COMMANDS

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "cells_loopback" / "cli" / "cells-loopback.1"


@pytest.fixture
def shown() -> str:
    """The page on a terminal of 80 columns."""
    man = require_program("man")
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANROFFOPT": "-ww"}
    done = subprocess.run(
        [man, "--warnings", "--pager=cat", "--local-file", PAGE],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def test_the_page_is_what_the_program_says_today() -> None:
    checking = [sys.executable, str(ROOT / "scripts" / "manpage"), "--check"]
    done = subprocess.run(checking, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_fits_a_terminal_and_parts_no_word(shown: str) -> None:
    assert [line for line in shown.splitlines() if len(line) > 80] == []
    assert "\N{HYPHEN}\n" not in shown


def test_it_tells_of_every_command_option_exit_code_and_variable(shown: str) -> None:
    for command in COMMANDS:
        assert f"\n   {command}\n" in shown
    for section in ("NAME", "SYNOPSIS", "GLOBAL OPTIONS", "EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES"):
        assert f"\n{section}\n" in shown
    for words in (
        "--redirect-uri URI",
        "-X, --request METHOD",
        "--format raw|json|header|curl",
        "-p, --profile NAME",
        "CELLS_LOOPBACK_CONFIG_DIR",
    ):
        assert f"       {words}\n" in shown
    for exit_code in range(10):
        assert f"\n       {exit_code}      " in shown


def test_options_can_be_copied_from_it(shown: str) -> None:
    assert "--client-id" in shown
    assert not set("\N{MINUS SIGN}\N{EN DASH}\N{RIGHT SINGLE QUOTATION MARK}") & set(shown)

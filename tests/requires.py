"""What a test needs from the machine: skipped without it, failed where everything is promised."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

THOROUGH = os.environ.get("CELLS_LOOPBACK_TESTS_THOROUGH") == "1"
"""Whether there is time, as in CI: nothing is left out, and every number is as large as promised."""

thorough = pytest.mark.skipif(
    not THOROUGH, reason="takes long: set CELLS_LOOPBACK_TESTS_THOROUGH=1 to run it, as CI does"
)
"""Marks a test that would make the suite too long for everyday."""


def require_program(name: str) -> str:
    """Return the path of a program, or skip the test that needs it."""
    return shutil.which(name) or lacks(f"{name} is not installed")


def lacks(reason: str) -> NoReturn:
    """Skip a test that this machine has not got everything for.

    With ``CELLS_LOOPBACK_TESTS_REQUIRE_ALL=1``, as CI sets it, that is a failure.
    """
    if os.environ.get("CELLS_LOOPBACK_TESTS_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)

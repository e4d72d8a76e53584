"""The installed command, a person at a desktop, and a network of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from desktop import Desktop
from program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


@pytest.fixture
def desktop() -> Iterator[Desktop]:
    desktop = Desktop()
    yield desktop
    desktop.close()

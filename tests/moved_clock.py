"""Our two clocks in the hands of a test, and the servers' clocks with them."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING

import cells_loopback
from cells_loopback import clock

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from cells_loopback.testing import CellsServer


class MovedClock:
    """Time that passes when the test says so, on top of the time that really passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *servers: CellsServer) -> None:
        self._servers = servers
        self._ahead = 0.0
        self._wall_is_off = 0.0
        real_wall, real_uptime = clock.wall, clock.uptime
        self.wall: Callable[[], float] = lambda: real_wall() + self._ahead + self._wall_is_off
        self.uptime: Callable[[], float] = lambda: real_uptime() + self._ahead
        for found in pkgutil.walk_packages(cells_loopback.__path__, "cells_loopback."):
            if not found.name.endswith("__main__") and ".testing" not in found.name:
                importlib.import_module(found.name)
        for name, module in list(sys.modules.items()):
            if name.startswith("cells_loopback.") and not name.startswith("cells_loopback.testing"):
                for attribute, ours in (("wall", self.wall), ("uptime", self.uptime)):
                    if getattr(module, attribute, None) is getattr(clock, attribute) and module is not clock:
                        monkeypatch.setattr(module, attribute, ours)
        monkeypatch.setattr(clock, "wall", self.wall)
        monkeypatch.setattr(clock, "uptime", self.uptime)

    def advance(self, seconds: float) -> None:
        """Let time pass, here and on the servers."""
        self._ahead += seconds
        for server in self._servers:
            server.advance(seconds)

    def set_wall(self, seconds: float) -> None:
        """Set our wall clock ahead, or back."""
        self._wall_is_off += seconds

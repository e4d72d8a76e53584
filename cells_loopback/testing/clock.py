"""The server's own idea of the time, which tests may move."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .behaviour import Behaviour


class ServerClock:
    """Unix seconds as the server sees them: a clock, plus the behaviour's offset, plus every advance."""

    def __init__(self, behaviour: Callable[[], Behaviour], clock: Callable[[], float] = time.time) -> None:
        self._behaviour = behaviour
        self._clock = clock
        self._advanced = 0.0

    def now(self) -> float:
        """Return the server's time."""
        return self._clock() + self._behaviour().clock_offset + self._advanced

    def advance(self, seconds: float) -> None:
        """Let that much time pass on the server at once."""
        self._advanced += seconds

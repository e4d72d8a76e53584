"""Many processes that ask for a token at one moment."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .commands import Command
    from .desk import Desk

SIZE = 200


class Herd:
    """`SIZE` processes with a valid session, then as many at the moment of its expiry."""

    def __init__(self, desk: Desk, config: str, command: Command) -> None:
        self._desk = desk
        self._config = config
        self._command = command
        self.refreshes: list[int] = []

    def __call__(self) -> Iterator[tuple[str, float]]:
        """Yield the wall time of both."""
        yield "herd, valid", self._run()
        self._desk.expire(self._config)
        before = self._desk.server.count("refresh")
        yield "herd, at expiry", self._run()
        self.refreshes.append(self._desk.server.count("refresh") - before)

    def _run(self) -> float:
        environment = {**os.environ, **self._command.environment}
        quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        program = self._command.argv[0]
        began = time.perf_counter()
        pids = [
            os.posix_spawn(program, self._command.argv, environment, file_actions=quiet) for _ in range(SIZE)
        ]
        failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in pids)
        took = time.perf_counter() - began
        if failed:
            raise RuntimeError(f"{failed} of {SIZE} processes got no token")
        return took

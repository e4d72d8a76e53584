"""`Finding`: one line of what `doctor` says; and checks run side by side, none of them for ever."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cells_loopback.errors import CellsLoopbackError

Result = TypeVar("Result")

Level = Literal["ok", "warning", "problem"]
"""A problem stops a login; a warning is worth a look; the rest is as it should be."""


@dataclass(frozen=True)
class Finding:
    """What was seen in one area, and the mend, '' where none is needed.

    ``exit_code`` is what a login would end with because of this, 0 for all but problems.
    """

    area: str
    level: Level
    message: str
    mend: str = ""
    exit_code: int = 0


def ok(area: str, message: str) -> Finding:
    """Return the finding that all is well."""
    return Finding(area, "ok", message)


def warning(area: str, message: str, mend: str) -> Finding:
    """Return the finding of something that stops no login."""
    return Finding(area, "warning", message, mend)


def problem(area: str, error: CellsLoopbackError) -> Finding:
    """Return the finding that a login would end with this error."""
    return Finding(area, "problem", error.message, error.hint, error.exit_code)


@dataclass(frozen=True)
class Check:
    """Checks of one kind, and what to say when they have not ended in time."""

    run: Callable[[], Iterable[Finding]] = field(repr=False)
    overdue: Finding

    def collect(self) -> list[Finding]:
        """Run the checks to their end."""
        return list(self.run())


def run_checks(checks: Sequence[Check], timeout: float) -> list[Finding]:
    """Run all checks at the same time, for ``timeout`` seconds, and return their findings in order."""
    answers = [start(check.collect) for check in checks]
    deadline = time.monotonic() + timeout
    findings: list[Finding] = []
    for check, answer in zip(checks, answers, strict=True):
        if wait((answer,), timeout=max(0.0, deadline - time.monotonic())).done:
            findings += answer.result()
        else:
            findings.append(check.overdue)
    return findings


def start(call: Callable[[], Result]) -> Future[Result]:
    """Call in a thread that ends with the process, so that what hangs can be left behind."""
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except Exception as error:  # noqa: BLE001 - handed to the thread that asked
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="doctor").start()
    return answer

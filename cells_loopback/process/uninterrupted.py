"""Run a piece of work to its end, whatever signal comes meanwhile.

Between the moment a refresh token is spent and the moment its successor is on the disk nothing may
stop the process. The work runs in a thread of its own that the interpreter waits for at its exit, and
SIGINT, SIGTERM and SIGHUP are held back until it is done. No signal handler is installed or changed.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

_running: set[threading.Thread] = set()


def run_uninterrupted(work: Callable[[], Result]) -> Result:
    """Return what ``work()`` returns, or raise what it raises.

    In a program with other threads the kernel may deliver a signal to one of those: the caller is then
    interrupted at once, and the work goes on to its end behind it.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def collect() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)
        finally:
            _running.discard(threading.current_thread())

    thread = threading.Thread(target=collect, name="cells-loopback renewal", daemon=False)
    _running.add(thread)
    if sys.platform == "win32":
        thread.start()
        thread.join()
    else:
        held_back = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, held_back)
        try:
            thread.start()  # inherits the mask
            thread.join()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if errors:
        raise errors[0]
    return results[0]


def wait_until_done() -> None:
    """Wait for all work that goes on behind callers that were interrupted, before the process is ended."""
    for thread in list(_running):
        while thread.is_alive():
            try:
                thread.join()
            except BaseException:  # noqa: BLE001, S110 - a second Ctrl-C: the process ends as soon as it may
                pass

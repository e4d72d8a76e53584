"""A lock between the threads of one process, which a forked child finds free."""

from __future__ import annotations

import os
import threading


class ThreadLock:
    """As `threading.Lock`, used as a context manager.

    A child that was forked while a thread held it has the lock, but not the thread that would give it back.
    """

    def __init__(self) -> None:
        self._of_process = (os.getpid(), threading.Lock())

    def __enter__(self) -> None:
        if self._of_process[0] != os.getpid():
            self._of_process = (os.getpid(), threading.Lock())
        self._of_process[1].acquire()

    def __exit__(self, *_: object) -> None:
        self._of_process[1].release()

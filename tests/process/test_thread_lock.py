"""One thread at a time, and a forked child waits for no thread that it has not got."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from cells_loopback.process.thread_lock import ThreadLock


def test_one_thread_at_a_time_has_it() -> None:
    lock = ThreadLock()
    entered = threading.Event()

    def enter() -> None:
        with lock:
            entered.set()

    with lock:
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.1)
    thread.join()
    assert entered.is_set()


@pytest.mark.skipif(sys.platform == "win32", reason="only POSIX forks")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_that_was_forked_meanwhile_finds_it_free() -> None:
    lock = ThreadLock()
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        with lock:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert status == 0

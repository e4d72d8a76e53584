"""Work runs to its end whatever signal comes, and the signal takes effect after it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from cells_loopback.process.uninterrupted import run_uninterrupted

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def test_the_result_is_returned_and_what_is_raised_is_raised() -> None:
    assert run_uninterrupted(lambda: 7) == 7

    def fail() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        run_uninterrupted(fail)


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_takes_effect_after_the_work(number: signal.Signals) -> None:
    # In a process of its own: here a thread of the test's worker could take the signal.
    script = """
import os, signal, sys
from cells_loopback.process.uninterrupted import run_uninterrupted
class Came(BaseException):
    pass
def handle(*_):
    raise Came
number = int(sys.argv[1])
signal.signal(number, handle)
def work():
    os.kill(os.getpid(), number)
    os.write(1, b"done ")
try:
    run_uninterrupted(work)
except Came:
    os.write(1, b"came")
"""
    assert output_of(script, str(int(number))) == "done came"


def output_of(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60, check=True
    ).stdout


def test_handlers_and_mask_are_as_they_were() -> None:
    before = [signal.getsignal(number) for number in SIGNALS], signal.pthread_sigmask(signal.SIG_BLOCK, [])
    run_uninterrupted(lambda: None)
    assert (
        [signal.getsignal(number) for number in SIGNALS],
        signal.pthread_sigmask(signal.SIG_BLOCK, []),
    ) == before


def test_it_works_in_any_thread_and_inside_itself() -> None:
    results: list[int] = []
    thread = threading.Thread(
        target=lambda: results.append(run_uninterrupted(lambda: run_uninterrupted(lambda: 7)))
    )
    thread.start()
    thread.join(30)
    assert results == [7]


def test_a_process_that_ends_waits_for_work_whose_caller_was_interrupted() -> None:
    # Another thread takes the signal, so the caller is interrupted while the work goes on behind it.
    script = """
import os, signal, sys, threading, time
from cells_loopback.process.uninterrupted import run_uninterrupted, wait_until_done
threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
def work():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    os.write(1, b"done")
try:
    run_uninterrupted(work)
except KeyboardInterrupt:
    os.write(1, b"interrupted ")
wait_until_done()
os._exit(0)
"""
    assert output_of(script) in {"interrupted done", "doneinterrupted "}

"""A signal that ends a command is never lost, wherever in the program it comes."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
from textwrap import indent

import pytest

from cells_loopback.process import termination
from cells_loopback.process.termination import terminate_on_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

PROGRAM = """
import os, sys, time, weakref
from cells_loopback.process.termination import terminate_on_signals

class Thing:
    pass

class Finalized:
    def __del__(self):
        signal_ourselves()

def signal_ourselves():
    os.kill(os.getpid(), int(sys.argv[1]))

terminate_on_signals()
try:
{place}
    time.sleep(20)
finally:
    print("cleaned up")
"""
PLACES = {
    "anywhere": "signal_ourselves()",
    "in-a-finalizer": "Finalized()",
    "in-a-callback": "thing = Thing()\nref = weakref.ref(thing, lambda _: signal_ourselves())\ndel thing",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_ends_the_program_through_every_finally(number: signal.Signals, place: str) -> None:
    program = PROGRAM.format(place=indent(place, "    "))
    done = subprocess.run(
        [sys.executable, "-c", program, str(int(number))],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
    )
    assert done.stdout == "cleaned up\n", done.stderr
    # Python ends itself by SIGINT when nobody catches KeyboardInterrupt.
    assert done.returncode == (-number if number == signal.SIGINT else 128 + number)
    assert number == signal.SIGINT or done.stderr == ""


def test_an_ignored_hang_up_stays_ignored() -> None:
    """As under nohup(1)."""
    program = "import signal\nsignal.signal(1, signal.SIG_IGN)\n" + PROGRAM.format(place="    pass")
    program = program.replace("time.sleep(20)", "signal_ourselves()")
    done = subprocess.run([sys.executable, "-c", program, "1"], timeout=15, check=False)
    assert done.returncode == 0


def test_any_other_error_in_a_finalizer_is_told_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))
    monkeypatch.setattr(termination, "_other_hooks", [])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        terminate_on_signals()
        terminate_on_signals()

        class Broken:
            def __del__(self) -> None:
                raise ZeroDivisionError

        Broken()
        gc.collect()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert [type(error) for error in told] == [ZeroDivisionError]

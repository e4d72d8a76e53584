"""What ends the sleep of the resident keep-alive, and that nothing else does."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cells_loopback.keepalive import wakeup
from cells_loopback.keepalive.wakeup import KernelSleeper, PieceSleeper, make_sleeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cells_loopback.keepalive.wakeup import Sleeper

# Whoever sets the machine's clock, as a test here does, wakes every sleeper of the machine.
pytestmark = pytest.mark.xdist_group("clock")

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own sleep is Linux'")
LONG = 20.0


@pytest.fixture(params=["kernel", "pieces"])
def sleeper(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sleeper]:
    if request.param == "kernel" and sys.platform != "linux":
        pytest.skip("the kernel's own sleep is Linux'")
    made: Sleeper = (
        KernelSleeper(str(tmp_path)) if request.param == "kernel" else PieceSleeper(str(tmp_path), piece=0.05)
    )
    yield made
    made.close()


def slept(sleeper: Sleeper, seconds: float, meanwhile: Callable[[], object] | None = None) -> float:
    """Return for how long it slept; ``meanwhile`` happens once it does."""
    started = time.monotonic()
    timer = threading.Timer(0.1, meanwhile or (lambda: None))
    timer.start()
    sleeper.sleep(time.time() + seconds)
    duration = time.monotonic() - started
    timer.join()
    return duration


def sleeps_through(sleeper: Sleeper, seconds: float, meanwhile: Callable[[], object] | None = None) -> bool:
    """Tell whether it sleeps that long in one of three tries: the machine's clock may be set at any time."""
    return any(seconds - 0.01 <= slept(sleeper, seconds, meanwhile) < LONG for _ in range(3))


def test_it_sleeps_until_its_moment(sleeper: Sleeper) -> None:
    assert sleeps_through(sleeper, 0.3)


@pytest.mark.parametrize("seconds", [0, -5, -1e9])
def test_a_moment_that_has_passed_is_now(sleeper: Sleeper, seconds: float) -> None:
    assert slept(sleeper, seconds) < LONG


def test_a_profile_that_comes_changes_or_goes_ends_the_sleep(sleeper: Sleeper, tmp_path: Path) -> None:
    profile, next_one = tmp_path / "work.json", tmp_path / ".work.json.tmp"

    def put() -> None:
        next_one.touch()
        os.replace(next_one, profile)

    for change in (put, put, profile.unlink):
        assert slept(sleeper, LONG, change) < LONG


@linux_only
def test_a_change_between_two_sleeps_is_not_missed(tmp_path: Path) -> None:
    sleeper = KernelSleeper(str(tmp_path))
    (tmp_path / "new").touch()
    (tmp_path / "new").rename(tmp_path / "work.json")
    assert slept(sleeper, LONG) < LONG
    sleeper.close()


@linux_only
def test_what_is_only_read_or_written_in_place_ends_nothing(tmp_path: Path) -> None:
    lock = tmp_path / "work.lock"
    lock.touch()
    sleeper = KernelSleeper(str(tmp_path))
    assert sleeps_through(sleeper, 0.4, lambda: lock.write_text("held"))
    sleeper.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_ends_it_through_its_handler(sleeper: Sleeper, number: signal.Signals) -> None:
    class Ended(BaseException):
        pass

    def end(*_: object) -> None:
        raise Ended

    before = signal.signal(number, end)
    try:
        with pytest.raises(Ended):
            slept(sleeper, LONG, lambda: os.kill(os.getpid(), number))
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("clock", ["wall", "uptime"])
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_in_pieces_a_clock_that_jumps_ends_it(
    clock: str, jump: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = PieceSleeper(str(tmp_path), piece=0.05)
    real = getattr(wakeup, clock)

    def set_clock() -> None:
        monkeypatch.setattr(wakeup, clock, lambda: real() + jump)

    assert slept(sleeper, 7200, set_clock) < LONG


def test_in_pieces_both_clocks_tell_of_a_suspend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = PieceSleeper(str(tmp_path), piece=0.05)

    def suspend() -> None:
        for clock in ("uptime", "wall"):
            real = getattr(wakeup, clock)
            monkeypatch.setattr(wakeup, clock, lambda real=real: real() + 3600)

    assert slept(sleeper, 7200, suspend) < LONG


@linux_only
def test_a_directory_that_is_gone_and_back_is_followed(tmp_path: Path) -> None:
    directory = tmp_path / "profiles"
    directory.mkdir()
    sleeper = make_sleeper(str(directory))
    assert isinstance(sleeper, KernelSleeper)
    assert slept(sleeper, LONG, directory.rmdir) < LONG
    assert slept(sleeper, 0.2) < LONG
    directory.mkdir()

    def put() -> None:
        (directory / "new").touch()
        (directory / "new").rename(directory / "work.json")

    assert slept(sleeper, LONG, put) < LONG
    sleeper.close()


def set_the_clock_to_what_it_says() -> None:
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time())
    except PermissionError:
        pytest.skip("this user may not set the clock")


@linux_only
def test_the_kernel_tells_of_a_clock_that_was_set(tmp_path: Path) -> None:
    set_the_clock_to_what_it_says()
    sleeper = KernelSleeper(str(tmp_path))
    assert slept(sleeper, LONG, set_the_clock_to_what_it_says) < LONG
    sleeper.close()


@linux_only
def test_a_clock_that_was_set_between_two_sleeps_ends_the_next_one(tmp_path: Path) -> None:
    sleeper = KernelSleeper(str(tmp_path))
    assert slept(sleeper, 0.0) < LONG
    set_the_clock_to_what_it_says()
    assert slept(sleeper, LONG) < LONG
    sleeper.close()


@linux_only
def test_it_costs_nothing_to_sleep(tmp_path: Path) -> None:
    sleeper = KernelSleeper(str(tmp_path))
    before = time.thread_time()
    slept(sleeper, 0.5)
    assert time.thread_time() - before < 0.05
    sleeper.close()


def test_where_the_kernel_offers_less_the_sleep_is_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert isinstance(make_sleeper(str(tmp_path)), PieceSleeper)

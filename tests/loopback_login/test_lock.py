"""Two logins to one profile are one: the second waits, and gets what the first came to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cells_loopback import errors
from cells_loopback.errors import CellsLoopbackError, LoginFailedError, LoginTimeoutError
from cells_loopback.loopback_login.lock import LoginLock
from cells_loopback.store.lock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable

FOREVER = 20.0
KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CellsLoopbackError)
]


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "work.login")


def held(path: str) -> LoginLock:
    lock = LoginLock(path)
    assert lock.try_acquire()
    return lock


def join(path: str, meanwhile: Callable[[], object], timeout: float = FOREVER) -> bool:
    """Join the login at ``path``; ``meanwhile`` happens once that is told."""
    return asyncio.run(LoginLock(path).acquire_or_join(timeout, lambda _pid: meanwhile()))


def test_who_comes_first_logs_in(path: str) -> None:
    lock = LoginLock(path)
    told: list[str] = []
    assert asyncio.run(lock.acquire_or_join(FOREVER, told.append))
    assert told == []
    assert not LoginLock(path).try_acquire()


def test_who_joins_is_told_whose_login_it_is(path: str) -> None:
    first = held(path)
    told: list[str] = []

    def on_join(pid: str) -> None:
        told.append(pid)
        first.release(None)

    assert asyncio.run(LoginLock(path).acquire_or_join(FOREVER, on_join)) is False
    assert told == [str(os.getpid())]


def test_a_login_that_went_well_is_everybodys(path: str) -> None:
    first = held(path)
    assert join(path, lambda: first.release(None)) is False
    assert not os.path.exists(path)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_login_that_failed_fails_for_everybody_alike(path: str, kind: type[CellsLoopbackError]) -> None:
    first = held(path)
    error = kind("no \u00fc\x1b[31m", hint="do this", code="some_code")
    with pytest.raises(CellsLoopbackError) as caught:
        join(path, lambda: first.release(error))
    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.hint, caught.value.code) == (
        error.message,
        error.hint,
        error.code,
    )
    assert not os.path.exists(path)


def test_a_login_that_was_given_up_is_taken_over(path: str) -> None:
    first = held(path)
    second = LoginLock(path)
    assert asyncio.run(second.acquire_or_join(FOREVER, lambda _pid: first.abandon())) is True
    assert not LoginLock(path).try_acquire()
    second.release(None)


def test_a_login_that_was_killed_is_taken_over(path: str) -> None:
    program = (
        "import sys, time\n"
        "from cells_loopback.loopback_login.lock import LoginLock\n"
        "lock = LoginLock(sys.argv[1])\n"
        "print(lock.try_acquire(), flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "True\n"
        assert join(path, child.kill) is True


def test_any_number_may_wait_and_all_get_the_same(path: str) -> None:
    first = held(path)

    async def everybody() -> list[bool]:
        joined: list[str] = []

        def on_join(pid: str) -> None:
            joined.append(pid)
            if len(joined) == 5:
                first.release(None)

        return await asyncio.gather(*(LoginLock(path).acquire_or_join(FOREVER, on_join) for _ in range(5)))

    assert asyncio.run(everybody()) == [False] * 5


def test_when_the_first_is_given_up_exactly_one_of_the_waiting_takes_over(path: str) -> None:
    first = held(path)

    async def everybody() -> list[bool]:
        joined: list[str] = []

        def on_join(pid: str) -> None:
            joined.append(pid)
            if len(joined) == 3:
                first.abandon()

        async def log_in() -> bool:
            lock = LoginLock(path)
            ours = await lock.acquire_or_join(FOREVER, on_join)
            if ours:
                await asyncio.sleep(0.3)  # as a person takes, and longer than the others look away
                lock.release(None)
            return ours

        return await asyncio.gather(*(log_in() for _ in range(3)))

    assert sorted(asyncio.run(everybody())) == [False, False, True]


def test_a_login_that_does_not_end_is_waited_for_in_vain(path: str) -> None:
    first = held(path)
    started = time.monotonic()
    with pytest.raises(LoginTimeoutError) as caught:
        join(path, lambda: None, timeout=0.2)
    assert caught.value.exit_code == 6
    assert 0.2 <= time.monotonic() - started < FOREVER
    first.release(None)


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"\xff\xfe", b'{"pid": null}'])
def test_a_note_of_another_kind_does_no_harm(path: str, note: bytes) -> None:
    lock = FileLock(path)
    assert lock.try_acquire()
    Path(path).write_bytes(note)
    assert join(path, lock.release) is True


def test_an_outcome_that_nobody_knows_is_a_failure(path: str) -> None:
    lock = FileLock(path)
    assert lock.try_acquire()
    Path(path).write_bytes(b'{"exit_code": "x"}')
    with pytest.raises(CellsLoopbackError) as caught:
        join(path, lock.release)
    assert caught.value.exit_code == 1


def test_a_lock_that_was_given_back_is_not_given_back_twice(path: str) -> None:
    first = held(path)
    first.release(LoginFailedError("no"))
    second = held(path)
    first.abandon()
    assert not LoginLock(path).try_acquire()
    second.abandon()
    assert not os.path.exists(path)


def test_the_lock_taken_before_is_gone_on_with(path: str) -> None:
    before = FileLock(path)
    assert before.try_acquire()
    lock = LoginLock(path)
    lock.take_over(before)
    assert str(os.getpid()) in Path(path).read_text()
    lock.release(None)
    assert before.try_acquire()
    before.release()


def test_a_long_message_is_cut_and_still_an_error(path: str) -> None:
    first = held(path)
    with pytest.raises(LoginFailedError) as caught:
        join(path, lambda: first.release(LoginFailedError("x" * 100_000, hint="y" * 100_000)))
    assert caught.value.message == "x" * 1000

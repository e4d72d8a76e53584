"""One holder at a time: across threads, processes, forks and crashes, and where there are no locks."""

from __future__ import annotations

import errno
import gc
import os
import runpy
import signal
import stat
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from cells_loopback.errors import StoreError
from cells_loopback.store import lock as lock_module
from cells_loopback.store.lock import STALE_AFTER, STAND_IN, FileLock, has_kernel_locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="forks, signals and links of POSIX")

HOLD = """
import sys
from cells_loopback.store.lock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
lock.write_note("process of a test")
print("held", flush=True)
sys.stdin.read()
"""


def no_locks(descriptor: int) -> None:
    """Stand for the kernel's lock on a file system that has none."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.fixture(params=["kernel lock", "stand-in"])
def make_lock(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], FileLock]:
    path = str(tmp_path / "work.lock")
    if request.param == "stand-in":
        return lambda: FileLock(path, no_locks)
    return lambda: FileLock(path)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "work.lock")


@pytest.fixture
def other_holder(path: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_only_one_holds_it_and_the_next_one_after(make_lock: Callable[[], FileLock]) -> None:
    first, second = make_lock(), make_lock()
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


def test_one_of_many_threads_holds_it_at_a_time(make_lock: Callable[[], FileLock]) -> None:
    inside: list[int] = []
    overlaps: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            with make_lock():
                inside.append(number)
                if len(inside) != 1:
                    overlaps.append(number)
                time.sleep(0.0005)
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert overlaps == []


def test_the_kernel_takes_it_back_from_a_killed_process(
    path: str, other_holder: subprocess.Popen[str]
) -> None:
    mine = FileLock(path)
    assert not mine.try_acquire()
    other_holder.kill()
    other_holder.wait()
    assert mine.try_acquire()
    assert mine.read_note() == "process of a test"


def test_the_wait_is_bounded_and_names_the_holder(path: str, other_holder: subprocess.Popen[str]) -> None:
    with pytest.raises(StoreError, match=r"still locked after 0 s \(process of a test\)") as raised:
        FileLock(path).acquire(timeout=0.02)
    assert raised.value.exit_code == 8
    assert raised.value.code == "locked"
    assert "try again" in raised.value.hint


def test_a_waiter_that_finds_what_it_wants_goes_without_the_lock(
    path: str, other_holder: subprocess.Popen[str]
) -> None:
    asked: list[bool] = []

    def until() -> bool:
        asked.append(len(asked) == 2)
        return asked[-1]

    waiter = FileLock(path)
    assert not waiter.acquire(until=until)
    assert asked == [False, False, True]
    waiter.release()
    assert not FileLock(path).try_acquire()


def test_the_pauses_between_two_tries_grow_to_a_twentieth_of_a_second(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    with FileLock(path):
        assert not FileLock(path).acquire(until=lambda: len(pauses) == 9)
    assert pauses[:3] == pytest.approx([0.004, 0.006, 0.009])
    assert pauses == sorted(pauses)
    assert pauses[-2:] == [0.05, 0.05]


def test_what_until_raises_ends_the_wait(path: str, other_holder: subprocess.Popen[str]) -> None:
    def until() -> bool:
        raise StoreError("the profile is gone")

    with pytest.raises(StoreError, match="gone"):
        FileLock(path).acquire(until=until)


def test_a_file_that_was_removed_while_it_was_opened_is_no_lock(path: str) -> None:
    def lock_too_late(descriptor: int) -> None:
        os.unlink(path)  # what `logout` does between our opening and our locking

    waiter = FileLock(path, lock_too_late)
    assert not waiter.try_acquire()


def test_after_remove_the_next_one_makes_a_new_file(path: str) -> None:
    first = FileLock(path)
    assert first.try_acquire()
    first.remove()
    assert not os.path.exists(path)
    second = FileLock(path)
    assert second.try_acquire()
    first.release()
    assert not FileLock(path).try_acquire()
    second.release()


def test_the_file_stays_after_release_for_its_owner_alone(path: str) -> None:
    with FileLock(path):
        pass
    assert os.path.exists(path)
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_lock_knows_since_when_it_is_wanted(path: str) -> None:
    assert FileLock(path).wanted_since == pytest.approx(time.time(), abs=60)


def test_a_note_replaces_the_one_before_whatever_its_length(path: str) -> None:
    with FileLock(path) as lock:
        lock.write_note("a long note about nothing in particular")
        lock.write_note("short ü")
        assert lock.read_note() == "short ü"
        lock.write_note("")
        assert lock.read_note() == ""


def test_windows_writes_a_note_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    binary = 1 << 40
    monkeypatch.setattr(os, "O_BINARY", binary, raising=False)
    assert runpy.run_path(lock_module.__file__)["_FLAGS"] & binary


def test_any_text_is_a_note_and_any_bytes_are_read_up_to_a_limit(path: str) -> None:
    with FileLock(path) as lock:
        lock.write_note("a lone \udcff")
        assert lock.read_note() == "a lone ?"
        lock.write_note("x" * 5000)
        assert os.path.getsize(path) == 4096
        for content, note in ((b"  \xff  \n", "  \ufffd"), (b"x" * 5000, "x" * 4096)):
            with open(path, "wb") as file:
                file.write(content)
            assert lock.read_note() == note


def test_a_note_that_cannot_be_written_is_none(path: str) -> None:
    lock = FileLock(path)
    lock.write_note("nobody holds it")
    assert lock.read_note() == ""


def test_a_lock_that_nobody_refers_to_is_given_back(make_lock: Callable[[], FileLock]) -> None:
    def be_interrupted() -> None:
        lock = make_lock()
        assert lock.try_acquire()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        be_interrupted()
    gc.collect()
    mine = make_lock()
    assert mine.try_acquire()
    mine.release()


@POSIX
def test_a_forked_process_neither_keeps_the_lock_nor_gives_it_back(make_lock: Callable[[], FileLock]) -> None:
    lock = make_lock()
    assert lock.try_acquire()
    code = _run_in_fork(lock.release)
    assert code == 0
    assert not make_lock().try_acquire()  # still ours
    end_child, child = _fork_sleeping()
    lock.release()
    mine = make_lock()
    held = mine.try_acquire()  # though the child still has its copy of the descriptor
    os.close(end_child)
    os.waitpid(child, 0)
    mine.release()
    assert held


def _run_in_fork(call: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            call()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fork_sleeping() -> tuple[int, int]:
    """Return a descriptor that ends the child when it is closed, and the child."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_end)
        os.read(read_end, 1)
        os._exit(0)
    os.close(read_end)
    return write_end, child


@POSIX
def test_a_link_in_place_of_the_lock_file_is_refused(path: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    os.symlink(target, path)
    with pytest.raises(StoreError, match="cannot write"):
        FileLock(path).try_acquire()
    assert not target.exists()


def test_no_directory_no_lock(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        FileLock(str(tmp_path / "missing" / "work.lock")).try_acquire()


def test_an_error_that_says_nothing_about_locks_is_told(path: str) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    lock = FileLock(path, fail)
    with pytest.raises(StoreError, match="cannot write"):
        lock.try_acquire()


def test_the_file_system_of_the_tests_has_locks(path: str) -> None:
    with FileLock(path):
        pass
    assert has_kernel_locks(path)
    assert not has_kernel_locks(path, no_locks)


class TestStandIn:
    """Where a file system has no locks a file created exclusively stands in."""

    @staticmethod
    def leave(path: str, holder: str, age: float = 0) -> str:
        """Leave a stand-in behind as a crashed process does."""
        stand_in = path + STAND_IN
        with open(stand_in, "w", encoding="utf-8") as file:
            file.write(holder)
        then = time.time() - age
        os.utime(stand_in, (then, then))
        return stand_in

    @POSIX
    def test_a_crashed_holder_on_this_machine_is_found_out_at_once(self, path: str) -> None:
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        self.leave(path, lock_module._holder_name(child.pid).decode())
        lock = FileLock(path, no_locks)
        assert lock.acquire(timeout=5)
        lock.release()

    def test_a_living_holder_is_left_alone(self, path: str) -> None:
        stand_in = self.leave(path, lock_module._holder_name(os.getpid()).decode(), age=STALE_AFTER - 10)
        with pytest.raises(StoreError) as raised:
            FileLock(path, no_locks).acquire(timeout=0.02)
        assert raised.value.message == f"{path} is still locked after 0 s"
        assert os.path.exists(stand_in)

    @POSIX
    def test_a_living_holder_that_is_somebody_elses_is_left_alone(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in = self.leave(path, lock_module._holder_name(77).decode())
        asked: list[tuple[int, int]] = []

        def refuse(pid: int, number: int) -> None:
            asked.append((pid, number))
            raise PermissionError

        monkeypatch.setattr(os, "kill", refuse)
        assert not FileLock(path, no_locks).try_acquire()
        assert asked == [(77, 0)]
        assert os.path.exists(stand_in)

    @pytest.mark.parametrize("holder", ["77@another.example.com", "", "garbage"])
    def test_a_holder_that_cannot_be_asked_is_stale_by_its_age(self, path: str, holder: str) -> None:
        stand_in = self.leave(path, holder, age=STALE_AFTER - 10)
        assert not FileLock(path, no_locks).try_acquire()
        assert not FileLock(path, no_locks).try_acquire()
        assert os.path.exists(stand_in)
        self.leave(path, holder, age=STALE_AFTER + 10)
        lock = FileLock(path, no_locks)
        assert lock.acquire(timeout=5)
        lock.release()

    def test_only_the_stale_stand_in_is_removed_and_not_the_one_that_took_its_place(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        stand_in = self.leave(path, "77@another.example.com", age=STALE_AFTER + 10)
        rename = os.rename

        def be_late(source: str, target: str) -> None:
            self.leave(path, "78@a-faster.example.com")
            rename(source, target)

        monkeypatch.setattr(os, "rename", be_late)
        lock_module._remove_if_stale(stand_in)
        with open(stand_in, encoding="utf-8") as file:
            assert file.read() == "78@a-faster.example.com"
        assert os.listdir(os.path.dirname(path)).count(os.path.basename(stand_in)) == 1

    def test_it_is_for_its_owner_alone_and_names_its_process(self, path: str) -> None:
        with FileLock(path, no_locks):
            with open(path + STAND_IN, "rb") as file:
                assert file.read() == lock_module._holder_name(os.getpid())
            if sys.platform != "win32":
                assert stat.S_IMODE(os.stat(path + STAND_IN).st_mode) == 0o600
        assert not os.path.exists(path + STAND_IN)

    def test_one_that_cannot_be_made_is_told(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        opened = os.open

        def refuse(name: str, *arguments: int) -> int:
            if name.endswith(STAND_IN):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
            return opened(name, *arguments)

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(StoreError) as raised:
            FileLock(path, no_locks).try_acquire()
        assert raised.value.message == f"cannot write {path}{STAND_IN}: {os.strerror(errno.EACCES)}"

    def test_nothing_is_left_behind(self, path: str) -> None:
        self.leave(path, "77@another.example.com", age=STALE_AFTER + 10)
        lock = FileLock(path, no_locks)
        assert lock.acquire(timeout=5)
        lock.release()
        assert sorted(os.listdir(os.path.dirname(path))) == ["home", "work.lock"]


@POSIX
def test_waiting_can_be_interrupted(path: str, other_holder: subprocess.Popen[str]) -> None:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        FileLock(path).acquire(timeout=20)
    timer.join()

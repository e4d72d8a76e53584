"""A renewal cut off at any step leaves a whole session, and loses none but with an unwritten answer."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cut_off import STEPS, CutOff
from requires import lacks
from sessions import age_session, read_session, store_session

from cells_loopback.store.private_file import temporary_path
from cells_loopback.store.profiles import ProfileStore
from cells_loopback.testing import CellsServer, Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cells_loopback.store.profiles import Profile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals, /proc and mounts of Linux")

LOST = {"answered", "writing", "half-written"}
"""The steps at which the answer is in memory alone."""

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


@pytest.fixture(scope="module")
def cells() -> Iterator[CellsServer]:
    with CellsServer() as server:
        yield server


@pytest.fixture(scope="module")
def config_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "config"


@pytest.fixture(scope="module")
def cut_off(config_dir: Path) -> Iterator[CutOff]:
    script = CutOff(config_dir)
    yield script
    script.close()


@pytest.fixture
def old(cells: CellsServer, config_dir: Path) -> Profile:
    """A session whose access token has just ended."""
    store_session(cells, config_dir)
    return age_session(config_dir, 600)


def refreshes(cells: CellsServer, session: Profile) -> int:
    """Return how often the refresh tokens of this session were used, by the server's log."""
    first = session.tokens.refresh_token
    assert first is not None
    requests = [request for request in cells.requests if request.kind == "refresh"]
    start = [
        index for index, request in enumerate(requests) if request.form["refresh_token"] == first.reveal()
    ]
    return len(requests[start[0] :]) if start else 0


def is_alive(cells: CellsServer, session: Profile) -> bool:
    token = session.tokens.refresh_token
    return token is not None and token.reveal() in cells.refresh_tokens()


def leftovers(config_dir: Path) -> list[str]:
    return sorted(
        name for name in os.listdir(config_dir / "profiles") if name not in {"work.json", "work.lock"}
    )


class TestSteps:
    def test_uncut_it_renews_once(
        self, cells: CellsServer, config_dir: Path, cut_off: CutOff, old: Profile
    ) -> None:
        assert cut_off.renew() == 0
        new = read_session(config_dir)
        assert new.tokens != old.tokens
        assert is_alive(cells, new)
        assert refreshes(cells, old) == 1

    @pytest.mark.parametrize("step", STEPS)
    def test_killed(
        self, cells: CellsServer, config_dir: Path, cut_off: CutOff, old: Profile, step: str
    ) -> None:
        assert cut_off.renew(step, signal.SIGKILL) == -signal.SIGKILL
        left = read_session(config_dir)  # whole, and the old or the new one
        is_new = STEPS.index(step) >= STEPS.index("renamed")
        assert (left.tokens == old.tokens) is not is_new
        if step in LOST:
            # The answer is gone with its process: the next use says so, and never tries again.
            assert [cut_off.renew(), cut_off.renew()] == [4, 4]
            assert read_session(config_dir).tokens == old.tokens
            assert refreshes(cells, old) == 2
            return
        assert cut_off.renew() == 0
        new = read_session(config_dir)
        assert is_alive(cells, new)
        assert new.tokens.access_token.reveal() in cells.access_tokens()
        assert refreshes(cells, old) == 1
        assert leftovers(config_dir) == []

    @pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
    @pytest.mark.parametrize("step", STEPS)
    def test_signalled(
        self,
        cells: CellsServer,
        config_dir: Path,
        cut_off: CutOff,
        old: Profile,
        step: str,
        number: signal.Signals,
    ) -> None:
        assert cut_off.renew(step, number) == ENDS[number]
        new = read_session(config_dir)
        assert is_alive(cells, new)
        assert refreshes(cells, old) == 1
        assert leftovers(config_dir) == []
        assert cut_off.renew() == 0
        assert read_session(config_dir) == new

    @pytest.mark.parametrize("step", STEPS)
    def test_a_login_after_the_cut_starts_clean(
        self, cells: CellsServer, config_dir: Path, cut_off: CutOff, old: Profile, step: str
    ) -> None:
        assert cut_off.renew(step, signal.SIGKILL) == -signal.SIGKILL
        anew = store_session(cells, config_dir)
        assert read_session(config_dir) == anew
        assert leftovers(config_dir) == []
        age_session(config_dir, 600)
        assert cut_off.renew() == 0
        assert is_alive(cells, read_session(config_dir))


class TestWhileTheAnswerIsUnderWay:
    """Cut off from outside, while the server has renewed and its answer is not yet here."""

    @contextmanager
    def renewing(self, cells: CellsServer, config_dir: Path) -> Iterator[subprocess.Popen[str]]:
        hold = threading.Event()
        asked = cells.count("refresh")
        cells.fault("refresh", Fault(answer_hold=hold))
        child = start_token(config_dir)
        try:
            cells.wait_for("refresh", asked + 1, timeout=60)
            yield child
            hold.set()
            child.communicate(timeout=60)
        finally:
            hold.set()
            child.kill()
            child.communicate()
            cells.clear_faults()

    def test_killed_it_is_told_honestly(
        self, cells: CellsServer, config_dir: Path, cut_off: CutOff, old: Profile
    ) -> None:
        with self.renewing(cells, config_dir) as child:
            child.kill()
            child.wait(60)
        assert read_session(config_dir) == old
        done = run_token(config_dir)
        assert done.returncode == 4
        assert f"cut off before its answer was stored: process {child.pid}, renewing since 2" in done.stderr

    @pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
    def test_signalled_it_waits_for_the_answer_and_ends_then(
        self, cells: CellsServer, config_dir: Path, old: Profile, number: signal.Signals
    ) -> None:
        with self.renewing(cells, config_dir) as child:
            child.send_signal(number)
            child.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.2)
        assert child.returncode == ENDS[number]
        new = read_session(config_dir)
        assert is_alive(cells, new)
        assert new != old

    def test_a_full_disk_does_not_matter_any_more(self, cells: CellsServer, small_disk: Path) -> None:
        config_dir = small_disk / "config"
        store_session(cells, config_dir)
        age_session(config_dir, 600)
        with self.renewing(cells, config_dir) as child:
            fill(small_disk)
        assert child.returncode == 0
        assert is_alive(cells, read_session(config_dir))


class TestDisk:
    def test_full(self, cells: CellsServer, small_disk: Path) -> None:
        config_dir = small_disk / "config"
        old = store_session(cells, config_dir)
        age_session(config_dir, 600)
        aged = read_session(config_dir)
        filler = fill(small_disk)
        done = run_token(config_dir)
        assert done.returncode == 8
        assert "No space left on device" in done.stderr
        assert "free some space" in done.stderr
        assert read_session(config_dir) == aged
        assert refreshes(cells, old) == 0
        filler.unlink()
        assert run_token(config_dir).returncode == 0
        assert is_alive(cells, read_session(config_dir))

    def test_read_only(self, cells: CellsServer, small_disk: Path) -> None:
        config_dir = small_disk / "config"
        old = store_session(cells, config_dir)
        remount(small_disk, "ro")
        assert run_token(config_dir).returncode == 0  # what is valid needs no disk to write to
        remount(small_disk, "rw")
        age_session(config_dir, 600)
        remount(small_disk, "ro")
        done = run_token(config_dir)
        assert done.returncode == 8
        assert "Read-only file system" in done.stderr
        assert refreshes(cells, old) == 0
        remount(small_disk, "rw")
        assert run_token(config_dir).returncode == 0
        assert is_alive(cells, read_session(config_dir))

    def test_a_limit_on_the_size_of_files(self, cells: CellsServer, config_dir: Path, old: Profile) -> None:
        done = run_token(config_dir, max_file_size=8192)
        assert done.returncode == 8
        assert "File too large" in done.stderr
        assert read_session(config_dir) == old
        assert refreshes(cells, old) == 0
        assert leftovers(config_dir) == []


class TestPowerCut:
    """What was flushed survives; a file system may keep or drop the rest, and may rename before it writes."""

    @pytest.mark.parametrize("cut", range(0, 3000, 500))
    def test_a_leftover_of_any_length_is_taken_over_only_when_it_is_whole(
        self, cells: CellsServer, config_dir: Path, cut_off: CutOff, old: Profile, cut: int
    ) -> None:
        # The answer was being written when the power went: some of its blocks are on the disk, others zeros.
        assert cut_off.renew("flushed", signal.SIGKILL) == -signal.SIGKILL
        temporary = temporary_path(ProfileStore(str(config_dir)).path("work"))
        with open(temporary, "r+b") as file:
            whole = file.read()
            is_whole = cut >= len(whole.rstrip())
            file.seek(0)
            file.write(whole[:cut] + b"\0" * (len(whole) - cut))
        assert read_session(config_dir).tokens == old.tokens
        assert cut_off.renew() == (0 if is_whole else 4)
        assert is_alive(cells, read_session(config_dir)) is is_whole

    def test_an_empty_file_in_the_place_of_a_session_is_told_and_not_written_over(
        self, cells: CellsServer, config_dir: Path, cut_off: CutOff, old: Profile
    ) -> None:
        path = config_dir / "profiles" / "work.json"
        path.write_bytes(b"")
        assert cut_off.renew() == 8
        assert path.read_bytes() == b""
        path.unlink()


class TestLibrary:
    """A program that uses the library has its own threads and its own signal handlers, or none."""

    RENEW = """
import sys, threading, time
if "thread" in sys.argv:
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
from cells_loopback import Session
session = Session.load("work", config_dir=sys.argv[1])
session.access_token()
print("not ended")
"""

    # SIGTERM's default action ends a process with several threads at once: that is the program's choice.
    @pytest.mark.parametrize(
        ("number", "threads"),
        [(signal.SIGINT, ()), (signal.SIGTERM, ()), (signal.SIGINT, ("thread",))],
        ids=["SIGINT", "SIGTERM", "SIGINT with another thread"],
    )
    def test_a_signal_ends_it_after_the_answer_is_stored(
        self,
        cells: CellsServer,
        config_dir: Path,
        old: Profile,
        number: signal.Signals,
        threads: tuple[str, ...],
    ) -> None:
        if threads and number == signal.SIGTERM:
            pytest.skip(
                "its default action ends a process with several threads at once: the program's choice"
            )
        hold = threading.Event()
        asked = cells.count("refresh")
        cells.fault("refresh", Fault(answer_hold=hold))
        child = subprocess.Popen(
            [sys.executable, "-c", self.RENEW, str(config_dir), *threads],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        cells.wait_for("refresh", asked + 1, timeout=60)
        child.send_signal(number)
        time.sleep(0.05)
        hold.set()
        out, _ = child.communicate(timeout=60)
        cells.clear_faults()
        assert (child.returncode, out) == (-number, "")
        new = read_session(config_dir)
        assert new != old
        assert is_alive(cells, new)


def start_token(config_dir: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cells_loopback", "--config-dir", str(config_dir), "token"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run_token(config_dir: Path, max_file_size: int | None = None) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if max_file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))

    return subprocess.run(
        [sys.executable, "-m", "cells_loopback", "--config-dir", str(config_dir), "token"],
        capture_output=True, text=True, timeout=60, check=False, preexec_fn=limit,
    )  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for some 30 pages."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k,mode=0700", "none", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        lacks("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=30)


def remount(place: Path, mode: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place)], check=True, timeout=30)


def fill(place: Path) -> Path:
    """Fill a file system to its last byte."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return filler

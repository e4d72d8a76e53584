"""Files for their owner alone: what is refused stays as it is, what is replaced is whole at every moment."""

from __future__ import annotations

import errno
import os
import shlex
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cells_loopback.errors import StoreError
from cells_loopback.store import private_file
from cells_loopback.store.private_file import (
    Replacement,
    adopt_leftover,
    check_private_directory,
    make_private_directory,
    read_private_file,
    remove_temporary,
    temporary_path,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes, owners and links of POSIX")
ROOT = pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root gives files away")
FREE_SOME_SPACE = "free some space on that disk, then try again; the stored session is as it was"
OLD, NEW = b'{"token": "the old one"}\n', b'{"token": "the new one, which is longer"}\n'


def busy_for(monkeypatch: pytest.MonkeyPatch, refusals: int) -> None:
    """Let the next renames fail as they do on Windows while a file is open, which is tried four times."""
    left = [PermissionError(errno.EACCES, "Access is denied")] * refusals
    replace = os.replace

    def refuse_at_first(source: str, target: str) -> None:
        if left:
            raise left.pop()
        replace(source, target)

    monkeypatch.setattr(private_file, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(os, "replace", refuse_at_first)


@pytest.fixture
def path(tmp_path: Path) -> str:
    directory = tmp_path / "a directory's name"
    directory.mkdir(mode=0o700)
    file = directory / "work.json"
    file.write_bytes(OLD)
    file.chmod(0o600)
    return str(file)


def look(path: str) -> tuple[int, int, bytes]:
    """Return everything of a file that a refusal must leave alone."""
    status = os.lstat(path)
    with open(path, "rb") as file:
        return status.st_mode, status.st_mtime_ns, file.read()


def mend(error: StoreError) -> None:
    """Run the command that the hint ends with, as a person would paste it."""
    subprocess.run(["sh", "-c", error.hint.rpartition(": ")[2]], check=True, timeout=10)


class TestReading:
    def test_a_private_file_is_read_whole(self, path: str) -> None:
        content, status = read_private_file(path)
        assert content == OLD
        assert status.st_size == len(OLD)

    def test_no_file_is_no_error_of_the_store(self, path: str) -> None:
        with pytest.raises(FileNotFoundError):
            read_private_file(path + ".missing")

    @POSIX
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777], ids=oct)
    def test_a_file_that_others_reach_is_refused_with_the_command_that_mends_it(
        self, path: str, mode: int
    ) -> None:
        os.chmod(path, mode)
        before = look(path)
        with pytest.raises(StoreError, match="can be read by others") as raised:
            read_private_file(path)
        assert raised.value.exit_code == 8
        assert look(path) == before
        mend(raised.value)
        assert read_private_file(path)[0] == OLD

    @POSIX
    @pytest.mark.parametrize("mode", [0o600, 0o400, 0o700], ids=oct)
    def test_what_only_the_owner_reaches_is_read(self, path: str, mode: int) -> None:
        os.chmod(path, mode)
        assert read_private_file(path)[0] == OLD

    @POSIX
    def test_a_link_is_refused_even_to_a_private_file(self, path: str) -> None:
        link = path + ".link"
        os.symlink(path, link)
        with pytest.raises(StoreError, match="is a symbolic link") as raised:
            read_private_file(link)
        mend(raised.value)
        assert not os.path.lexists(link)
        assert read_private_file(path)[0] == OLD

    @ROOT
    def test_a_file_of_somebody_else_is_refused_even_for_root(self, path: str) -> None:
        os.chown(path, 12345, -1)
        before = look(path)
        with pytest.raises(StoreError, match=r"belongs to another user \(uid 12345\)") as raised:
            read_private_file(path)
        assert look(path) == before
        mend(raised.value)
        assert read_private_file(path)[0] == OLD

    @POSIX
    def test_a_directory_in_its_place_is_refused(self, path: str) -> None:
        os.unlink(path)
        os.mkdir(path)
        with pytest.raises(StoreError, match="is not a file") as raised:
            read_private_file(path)
        mend(raised.value)
        assert os.path.isdir(path + ".old")
        with pytest.raises(FileNotFoundError):
            read_private_file(path)

    @POSIX
    def test_a_fifo_in_its_place_is_refused_and_not_waited_for(self, path: str) -> None:
        os.unlink(path)
        os.mkfifo(path, 0o600)
        with pytest.raises(StoreError, match="is not a file"):
            read_private_file(path)

    def test_a_huge_file_is_refused(self, path: str) -> None:
        os.truncate(path, 1 << 20)
        with pytest.raises(StoreError, match="larger than a session can be") as raised:
            read_private_file(path)
        mend(raised.value)
        os.truncate(path + ".old", (1 << 20) - 1)
        os.rename(path + ".old", path)
        assert len(read_private_file(path)[0]) == (1 << 20) - 1

    @POSIX
    def test_a_path_through_a_file_is_told(self, path: str) -> None:
        with pytest.raises(StoreError) as raised:
            read_private_file(path + "/work.json")
        assert raised.value.message == f"cannot read {path}/work.json: Not a directory"

    @pytest.mark.parametrize("call", ["fstat", "read"])
    def test_a_disk_that_fails_is_told(self, path: str, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing(errno.EIO))
            with pytest.raises(StoreError) as raised:
                read_private_file(path)
        assert raised.value.message == f"cannot read {path}: {os.strerror(errno.EIO)}"
        assert raised.value.hint == f"check its owner and mode: ls -ld {shlex.quote(path)}"


class TestDirectories:
    def test_a_new_one_is_for_its_owner_alone(self, tmp_path: Path) -> None:
        directory = tmp_path / "config" / "profiles"
        make_private_directory(str(directory))
        make_private_directory(str(directory))
        check_private_directory(str(directory))
        if sys.platform != "win32":
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700

    def test_its_parent_may_be_there(self, tmp_path: Path) -> None:
        make_private_directory(str(tmp_path / "home" / "profiles"))
        check_private_directory(str(tmp_path / "home" / "profiles"))

    def test_one_that_somebody_else_makes_meanwhile_is_checked_like_any_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        directory = tmp_path / "profiles"

        def be_late(path: str, mode: int) -> None:
            directory.write_text("")
            raise FileExistsError

        monkeypatch.setattr(os, "mkdir", be_late)
        with pytest.raises(StoreError, match="is not a directory"):
            make_private_directory(str(directory))

    def test_one_that_cannot_be_made_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "mkdir", failing(errno.EACCES))
        with pytest.raises(StoreError) as raised:
            make_private_directory(str(tmp_path / "profiles"))
        assert raised.value.message == f"cannot write {tmp_path}/profiles: {os.strerror(errno.EACCES)}"

    @POSIX
    @pytest.mark.parametrize(
        ("mode", "accepted"), [(0o700, True), (0o755, True), (0o770, False), (0o1777, False)]
    )
    def test_one_that_others_can_write_to_is_refused(self, tmp_path: Path, mode: int, accepted: bool) -> None:
        directory = tmp_path / "it's a directory"
        directory.mkdir()
        directory.chmod(mode)
        if accepted:
            check_private_directory(str(directory))
            return
        with pytest.raises(StoreError, match="can be written by others") as raised:
            make_private_directory(str(directory))
        assert stat.S_IMODE(directory.stat().st_mode) == mode
        mend(raised.value)
        check_private_directory(str(directory))

    @POSIX
    def test_a_link_is_refused(self, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "home")
        with pytest.raises(StoreError, match="symbolic link") as raised:
            make_private_directory(str(link))
        assert raised.value.hint == "name the real place: --config-dir DIR"

    @ROOT
    def test_one_of_somebody_else_is_refused(self, tmp_path: Path) -> None:
        os.chown(tmp_path / "home", 12345, -1)
        with pytest.raises(StoreError, match=r"belongs to another user \(uid 12345\)") as raised:
            check_private_directory(str(tmp_path / "home"))
        assert raised.value.hint == "run this as that user, or use a place of your own: --config-dir DIR"

    def test_a_file_in_its_place_is_refused(self, path: str) -> None:
        with pytest.raises(StoreError, match="cannot read"):
            make_private_directory(os.path.join(path, "profiles"))
        with pytest.raises(StoreError, match="is not a directory") as raised:
            make_private_directory(path)
        mend(raised.value)
        make_private_directory(path)


class TestReplacing:
    def test_the_new_content_takes_the_place_of_the_old(self, path: str) -> None:
        with Replacement(path, 4096) as replacement:
            assert read_private_file(path)[0] == OLD
            replacement.commit(NEW)
        assert read_private_file(path)[0] == NEW
        assert os.listdir(os.path.dirname(path)) == ["work.json"]

    def test_a_new_file_is_private_whatever_the_umask(self, path: str) -> None:
        before = os.umask(0)
        try:
            with Replacement(path + ".new", 0) as replacement:
                replacement.commit(NEW)
        finally:
            os.umask(before)
        assert read_private_file(path + ".new")[0] == NEW

    @pytest.mark.parametrize("room", [0, 10, 100_000])
    def test_the_content_counts_and_not_the_room(self, path: str, room: int) -> None:
        with Replacement(path, room) as replacement:
            replacement.commit(NEW)
        assert read_private_file(path)[0] == NEW

    def test_what_is_not_committed_leaves_nothing(self, path: str) -> None:
        with Replacement(path, 4096):
            assert os.path.getsize(temporary_path(path)) == 4096
        assert os.listdir(os.path.dirname(path)) == ["work.json"]
        assert read_private_file(path)[0] == OLD

    def test_a_stale_temporary_file_is_cleaned_whatever_it_is(self, path: str) -> None:
        os.symlink(path, temporary_path(path))
        with Replacement(path, 10) as replacement:
            replacement.commit(NEW)
        assert read_private_file(path)[0] == NEW
        assert os.listdir(os.path.dirname(path)) == ["work.json"]

    @POSIX
    def test_a_file_that_was_opened_before_still_reads_the_old_content_whole(self, path: str) -> None:
        with open(path, "rb") as reader:
            with Replacement(path, 10) as replacement:
                replacement.commit(NEW)
            assert reader.read() == OLD

    @pytest.mark.parametrize("refusals", [0, 3])
    def test_windows_waits_a_moment_for_whoever_has_the_file_open(
        self, path: str, monkeypatch: pytest.MonkeyPatch, refusals: int
    ) -> None:
        busy_for(monkeypatch, refusals)
        with Replacement(path, 10) as replacement:
            replacement.commit(NEW)
        assert read_private_file(path)[0] == NEW

    def test_windows_does_not_wait_for_ever(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        busy_for(monkeypatch, 4)
        with Replacement(path, 10) as replacement:
            with pytest.raises(StoreError, match="cannot write"):
                replacement.commit(NEW)
            assert read_private_file(path)[0] == OLD
            replacement.commit(NEW)
        assert read_private_file(path)[0] == NEW

    def test_a_missing_directory_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="cannot write") as raised:
            Replacement(str(tmp_path / "missing" / "work.json"), 10)
        assert "ls -ld" in raised.value.hint

    @pytest.mark.parametrize(
        ("number", "hint"),
        [
            pytest.param(errno.ENOSPC, FREE_SOME_SPACE, id="no space"),
            pytest.param(getattr(errno, "EDQUOT", errno.ENOSPC), FREE_SOME_SPACE, id="over quota"),
            pytest.param(
                errno.EROFS,
                "that file system is read-only; use another place: --config-dir DIR",
                id="read-only",
            ),
            pytest.param(errno.EIO, "check the directory's owner and mode: ls -ld {}", id="broken disk"),
        ],
    )
    def test_room_that_is_not_to_be_had_is_told_before_anything_depends_on_it(
        self, path: str, number: int, hint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", failing(number))
        with pytest.raises(StoreError) as raised:
            Replacement(path, 4096)
        assert raised.value.message == f"cannot write {path}: {os.strerror(number)}"
        assert raised.value.hint == hint.format(shlex.quote(os.path.dirname(path)))
        assert os.listdir(os.path.dirname(path)) == ["work.json"]

    @POSIX
    @pytest.mark.parametrize("call", ["write", "ftruncate", "fsync", "replace"])
    def test_a_commit_that_failed_may_be_repeated(
        self, path: str, call: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Replacement(path, 10) as replacement:
            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing(errno.EIO))
                with pytest.raises(StoreError):
                    replacement.commit(NEW)
            assert read_private_file(path)[0] == OLD
            replacement.commit(NEW)
        assert read_private_file(path)[0] == NEW
        assert os.listdir(os.path.dirname(path)) == ["work.json"]

    @pytest.mark.parametrize("call", ["write", "fsync"])
    def test_a_commit_that_failed_before_all_was_written_leaves_nothing(
        self, path: str, call: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch, Replacement(path, 10) as replacement:
            patch.setattr(os, call, failing(errno.ENOSPC))
            with pytest.raises(StoreError):
                replacement.commit(NEW)
        assert os.listdir(os.path.dirname(path)) == ["work.json"]

    @POSIX
    def test_nothing_is_written_through_a_link_that_somebody_puts_there_meanwhile(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.symlink(path, temporary_path(path))
        monkeypatch.setattr(os, "unlink", lambda path: None)
        with pytest.raises(StoreError, match="cannot write"):
            Replacement(path, 4096)
        assert read_private_file(path)[0] == OLD

    @POSIX
    def test_a_directory_that_fails_to_flush_is_tried_again_and_never_writes_into_the_file_in_place(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Replacement(path, 10) as replacement:
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", failing(errno.EIO, only=stat.S_ISDIR))
                with pytest.raises(StoreError):
                    replacement.commit(NEW)
            in_place = os.stat(path).st_ino
            replacement.commit(NEW)
            assert os.stat(path).st_ino != in_place
        assert read_private_file(path)[0] == NEW

    @POSIX
    def test_a_file_system_that_flushes_no_directories_will_do(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "fsync", failing(errno.EINVAL, only=stat.S_ISDIR))
        with Replacement(path, 10) as replacement:
            replacement.commit(NEW)
        assert read_private_file(path)[0] == NEW

    @POSIX
    def test_content_and_directory_are_flushed_in_this_order(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        steps: list[str] = []
        fsync, replace = os.fsync, os.replace

        def note_fsync(descriptor: int) -> None:
            status = os.fstat(descriptor)
            steps.append("flush directory" if stat.S_ISDIR(status.st_mode) else f"flush {status.st_size}")
            fsync(descriptor)

        def note_replace(source: str, target: str) -> None:
            steps.append("rename")
            replace(source, target)

        monkeypatch.setattr(os, "fsync", note_fsync)
        monkeypatch.setattr(os, "replace", note_replace)
        with Replacement(path, 4096) as replacement:
            steps.append("answer")
            replacement.commit(NEW)
        assert steps == ["flush 4096", "answer", f"flush {len(NEW)}", "rename", "flush directory"]


class TestLeftovers:
    """A writer that was killed between write and rename has left the new content beside the old."""

    @staticmethod
    def leave(path: str, content: bytes) -> None:
        with open(temporary_path(path), "wb") as file:
            file.write(content)
        os.chmod(temporary_path(path), 0o600)

    @pytest.mark.parametrize("rest", [b"", b"\0" * 1000], ids=["whole", "before the room is given back"])
    def test_what_is_wanted_takes_its_place(self, path: str, rest: bytes) -> None:
        self.leave(path, NEW + rest)
        assert adopt_leftover(path, lambda content: content == NEW)
        assert read_private_file(path)[0] == NEW
        assert os.listdir(os.path.dirname(path)) == ["work.json"]

    def test_what_is_not_wanted_does_not(self, path: str) -> None:
        self.leave(path, NEW[:10])
        assert not adopt_leftover(path, lambda content: content == NEW)
        assert read_private_file(path)[0] == OLD

    def test_there_is_mostly_none(self, path: str) -> None:
        assert not adopt_leftover(path, lambda content: True)
        assert read_private_file(path)[0] == OLD

    @POSIX
    @pytest.mark.parametrize("make", [os.symlink, None], ids=["a link", "a file others may write"])
    def test_what_somebody_else_could_have_put_there_is_not_looked_at(
        self, path: str, make: Callable[[str, str], None] | None
    ) -> None:
        if make is None:
            self.leave(path, NEW)
            os.chmod(temporary_path(path), 0o622)
        else:
            make(path, temporary_path(path))
        assert not adopt_leftover(path, lambda content: True)
        assert read_private_file(path)[0] == OLD

    @POSIX
    def test_what_becomes_a_link_while_it_is_judged_is_left_alone(self, path: str) -> None:
        self.leave(path, NEW)

        def be_quick(content: bytes) -> bool:
            os.unlink(temporary_path(path))
            os.symlink(path, temporary_path(path))
            return True

        with pytest.raises(StoreError) as raised:
            adopt_leftover(path, be_quick)
        assert raised.value.message == f"cannot write {path}: {os.strerror(errno.ELOOP)}"
        assert read_private_file(path)[0] == OLD

    @POSIX
    def test_a_rename_that_fails_leaves_the_new_content_for_the_next_writer(
        self, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch, Replacement(path, 4096) as replacement:
            patch.setattr(os, "replace", failing(errno.EIO))
            with pytest.raises(StoreError):
                replacement.commit(NEW)
        assert adopt_leftover(path, lambda content: content == NEW)
        assert read_private_file(path)[0] == NEW

    def test_a_leftover_can_be_removed(self, path: str) -> None:
        self.leave(path, NEW)
        remove_temporary(path)
        remove_temporary(path)
        assert os.listdir(os.path.dirname(path)) == ["work.json"]


def failing(number: int, only: Callable[[int], bool] | None = None) -> Callable[..., object]:
    """Return a system call that fails; with ``only`` for descriptors of that kind of file alone."""

    def fail(*arguments: object, **options: object) -> None:
        descriptor = arguments[0]
        if only is not None and isinstance(descriptor, int) and not only(os.fstat(descriptor).st_mode):
            return
        raise OSError(number, os.strerror(number))

    return fail


def test_paths_in_hints_can_be_pasted() -> None:
    path = "/home/alice/my files/$(reboot).json"
    error = private_file.cannot_read(path, OSError(errno.EACCES, "no"))
    assert shlex.split(error.hint)[-1] == path

from __future__ import annotations

import os
import re
import stat
import sys
from pathlib import Path

import pytest

from cells_loopback.errors import StoreError
from cells_loopback.integrations.config_file import read_text, update_file

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="modes and owners are POSIX")


def add_line(text: str) -> str:
    return text if "ours\n" in text else text + "ours\n"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_changed_and_its_former_content_kept_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"not utf-8: \xff\r\n")
    update = update_file(str(path), add_line)
    assert path.read_bytes() == b"not utf-8: \xff\r\nours\n"
    assert update.changed
    assert update.backup is not None
    assert re.fullmatch(r"config\.\d{8}T\d{6}Z\.bak", Path(update.backup).name)
    assert Path(update.backup).read_bytes() == b"not utf-8: \xff\r\n"


def test_what_is_right_already_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("ours\n")
    before = path.stat()
    update = update_file(str(path), add_line)
    assert (update.changed, update.backup) == (False, None)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_ino == before.st_ino
    assert list(tmp_path.glob("config*")) == [path]


@posix_only
def test_a_device_or_a_pipe_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (str(pipe), os.devnull):
        with pytest.raises(StoreError, match="not a regular file") as caught:
            update_file(path, add_line)
        assert "--file" in caught.value.hint


def test_several_backups_within_a_second_do_not_replace_each_other(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("0")
    backups = [update_file(str(path), lambda text: text + "x").backup for _ in range(3)]
    assert [read_text(str(backup)) for backup in backups] == ["0", "0x", "0xx"]


@posix_only
@pytest.mark.parametrize("before", [0o600, 0o640, 0o644])
def test_a_file_keeps_its_mode_and_the_backup_is_private(tmp_path: Path, before: int) -> None:
    path = tmp_path / "config"
    path.write_text("")
    path.chmod(before)
    update = update_file(str(path), add_line)
    assert mode(path) == before
    assert update.backup is not None
    assert mode(Path(update.backup)) == 0o600


@posix_only
def test_a_new_file_and_its_directories_are_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "config"
    update = update_file(str(path), add_line)
    assert (update.changed, update.backup) == (True, None)
    assert mode(path) == 0o600
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o700, 0o700)


@posix_only
def test_a_symbolic_link_stays_one_and_what_it_points_to_is_changed(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "aws"
    real.write_text("mine\n")
    link = tmp_path / "config"
    link.symlink_to(Path("dotfiles") / "aws")
    update = update_file(str(link), add_line)
    assert link.is_symlink()
    assert real.read_text() == "mine\nours\n"
    assert update.backup is not None
    assert Path(update.backup).parent == tmp_path
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "dotfiles" / "new" / "file")
    update_file(str(dangling), add_line)
    assert dangling.is_symlink()
    assert (tmp_path / "dotfiles" / "new" / "file").read_text() == "ours\n"


def test_what_cannot_be_read_or_written_is_said_and_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot read"):
        update_file(str(tmp_path), add_line)
    (tmp_path / "file").write_text("mine\n")
    with pytest.raises(StoreError, match="cannot"):
        update_file(str(tmp_path / "file" / "config"), add_line)
    assert (tmp_path / "file").read_text() == "mine\n"


@posix_only
def test_a_write_that_fails_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config"
    path.write_text("mine\n")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left"):
        update_file(str(path), add_line)
    assert path.read_text() == "mine\n"
    assert {entry.suffix for entry in tmp_path.iterdir()} == {"", ".bak"}


def test_what_the_merge_refuses_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a" / "config"

    def refuse(_text: str) -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        update_file(str(path), refuse)
    assert not path.parent.exists()

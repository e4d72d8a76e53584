"""Other programs' configuration files: read, merged, backed up, and replaced as a whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cells_loopback.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_PRIVATE_FILE = 0o600
_PRIVATE_DIRECTORY = 0o700


@dataclass(frozen=True)
class Update:
    """What became of a file: ``backup`` is where its former content is, None when it had none."""

    path: str
    changed: bool
    backup: str | None = None


def read_text(path: str) -> str:
    """Return a file's text, empty when it is not there; bytes that are not UTF-8 survive being written.

    Raises `StoreError` when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="surrogateescape")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise _failure("read", path, error) from error


def update_file(path: str, merge: Callable[[str], str]) -> Update:
    """Put ``merge(text)`` in the place of a file's text, if that differs.

    The former content is kept beside it. The file keeps its mode and owner, a new one can be read by
    its owner alone; a symbolic link, as managers of dotfiles put there, stays one, and what it points
    to is replaced. Raises `StoreError` when that fails, and what ``merge`` raises.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for, a device replaced
        raise _failure("read", path, OSError("it is not a regular file"))
    before = read_text(path)
    after = merge(before)
    if after == before:
        return Update(path, changed=False)
    target = os.path.realpath(path)
    try:
        _make_directories(os.path.dirname(target))
        backup = _write_backup(path, _encode(before)) if os.path.exists(target) else None
        _replace(target, _encode(after))
    except OSError as error:
        raise _failure("write", path, error) from error
    return Update(path, changed=True, backup=backup)


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _make_directories(path: str) -> None:
    # os.makedirs gives its mode to the last directory only.
    if path and not os.path.isdir(path):
        _make_directories(os.path.dirname(path))
        os.mkdir(path, _PRIVATE_DIRECTORY)


def _write_backup(path: str, content: bytes) -> str:
    """Write a backup beside the name that the person knows, and return its path."""
    stem = f"{path}.{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    number = 0
    while True:
        backup = f"{stem}{f'-{number}' if number else ''}.bak"
        try:
            descriptor = os.open(backup, _NEW_FILE, _PRIVATE_FILE)
        except FileExistsError:
            number += 1
            continue
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        return backup


def _replace(path: str, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{os.path.basename(path)}.", dir=os.path.dirname(path))
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _copy_access(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _copy_access(path: str, temporary: str) -> None:
    """Give the new file the mode and the owner of the one it replaces."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return
    os.chmod(temporary, stat.S_IMODE(status.st_mode))
    if hasattr(os, "chown") and (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        os.chown(temporary, status.st_uid, status.st_gid)


def _failure(verb: str, path: str, error: OSError) -> StoreError:
    return StoreError(
        f"cannot {verb} {path}: {error.strerror or error}",
        hint="check its owner and mode, or name another file with --file",
    )

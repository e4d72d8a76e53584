"""Files that only their owner may read, replaced as a whole or not at all.

Light on purpose: the warm path of ``token`` reads with this. What the bytes mean is `profiles`' part.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time

from cells_loopback.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import ParamSpec, TypeVar

    Parameters = ParamSpec("Parameters")
    Result = TypeVar("Result")

MAX_BYTES = 1 << 20
"""A private file is smaller than this: what is larger is none of ours."""
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # a FIFO would let us wait for somebody who writes into it
_PAUSES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4) if sys.platform == "win32" else ()
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_private_file(path: str) -> tuple[bytes, os.stat_result]:
    """Return a file's bytes and its status; ``FileNotFoundError`` when there is none.

    Raises `StoreError`, with the command that mends it, for a file that is a link, belongs to someone
    else or can be read by others, and leaves the file as it is.
    """
    try:
        descriptor = _patiently(os.open, path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK | _CLOEXEC | _BINARY)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise StoreError(
                f"{path} is a symbolic link",
                hint=f"put the file itself there, or remove it: rm {_quote(path)}",
            ) from None
        raise cannot_read(path, error) from error
    try:
        status = os.fstat(descriptor)
        _refuse_unsafe_file(path, status)
        content = os.read(descriptor, MAX_BYTES)
    except OSError as error:
        raise cannot_read(path, error) from error
    finally:
        os.close(descriptor)
    return content, status


def _patiently(
    call: Callable[Parameters, Result], *arguments: Parameters.args, **named: Parameters.kwargs
) -> Result:
    """Call it; on Windows try again for a moment.

    No file is replaced there while somebody reads it, or read while it is being replaced, and virus
    scanners look at every new one.
    """
    for pause in _PAUSES:
        try:
            return call(*arguments, **named)
        except PermissionError:
            time.sleep(pause)
    return call(*arguments, **named)


def _refuse_unsafe_file(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path} is not a file", hint=f"move it away: {move_away(path)}")
    if status.st_size >= MAX_BYTES:
        raise StoreError(f"{path} is larger than a session can be", hint=f"move it away: {move_away(path)}")
    if sys.platform == "win32":
        return  # the directory's ACL says who may read
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"{path} belongs to another user (uid {status.st_uid})",
            hint=f"run this as that user, or take it over: chown {os.geteuid()} {_quote(path)}",
        )
    if status.st_mode & _OTHERS:
        raise StoreError(
            f"{path} can be read by others", hint=f"close it, then log in anew: chmod 600 {_quote(path)}"
        )


def check_private_directory(path: str) -> None:
    """Refuse a directory in which somebody else could put files in place of ours.

    Raises `StoreError` for a link, a foreign owner, or a directory that others can write to;
    ``FileNotFoundError`` when there is none.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot_read(path, error) from error
    if stat.S_ISLNK(status.st_mode):
        raise StoreError(f"{path} is a symbolic link", hint="name the real place: --config-dir DIR")
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{path} is not a directory", hint=f"move it away: {move_away(path)}")
    if sys.platform == "win32":
        return
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"{path} belongs to another user (uid {status.st_uid})",
            hint="run this as that user, or use a place of your own: --config-dir DIR",
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StoreError(f"{path} can be written by others", hint=f"close it: chmod 700 {_quote(path)}")


def make_private_directory(path: str) -> None:
    """Create a directory of mode 0700, its parents included, or check the one that is there."""
    try:
        check_private_directory(path)
    except FileNotFoundError:
        pass
    else:
        return
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError:
        check_private_directory(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    if sys.platform == "win32":
        from cells_loopback.process.windows import restrict_to_current_user

        restrict_to_current_user(path)


def temporary_path(path: str) -> str:
    """Return where the next content of ``path`` is written before it takes its place."""
    directory, name = os.path.split(path)
    return os.path.join(directory, f".{name}.tmp")


class Replacement:
    """The next content of a file, with its room on the disk reserved before anything depends on it.

    Used as a context manager: a refresh token is only spent while a `Replacement` is open, so a full
    or read-only disk is found out before, not after. Only the holder of the file's lock may open one,
    which is why the temporary file has one fixed name and a stale one can be removed.
    """

    def __init__(self, path: str, room: int) -> None:
        """Reserve ``room`` bytes beside ``path``. Raises `StoreError` when they are not to be had."""
        self._path = path
        self._temporary = temporary_path(path)
        self._descriptor = -1
        self._is_written = False
        try:
            self._open()
            self._fill(b"\0" * room)
        except OSError as error:
            self.close()
            raise cannot_write(path, error) from error

    def _open(self) -> None:
        try:
            os.unlink(self._temporary)
        except FileNotFoundError:
            pass
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC | _BINARY
        self._descriptor = os.open(self._temporary, flags, 0o600)

    def _fill(self, content: bytes) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        written = 0
        while written < len(content):
            written += os.write(self._descriptor, content[written:])
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)

    def commit(self, content: bytes) -> None:
        """Put ``content`` in the file's place: written, flushed to disk, renamed, the rename flushed too.

        Raises `StoreError` when that fails; it may be called again as long as this is open.
        """
        self._is_written = False
        try:
            if self._descriptor < 0:
                self._open()
            self._fill(content)
            self._is_written = True
            if sys.platform == "win32":  # an open file cannot be renamed there
                self._close_descriptor()
            _patiently(os.replace, self._temporary, self._path)
            self._close_descriptor()
            _flush_directory(self._path)
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        """Give back what was reserved; what was written and not renamed stays for `adopt_leftover`."""
        if self._descriptor >= 0:
            self._close_descriptor()
            if not self._is_written:
                remove_temporary(self._path)

    def _close_descriptor(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Replacement:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def adopt_leftover(path: str, is_wanted: Callable[[bytes], bool]) -> bool:
    """Put in place what an earlier writer had written when its end came, if it ``is_wanted``.

    Only for the holder of the file's lock, before a `Replacement` is opened. Raises `StoreError` when
    that fails.
    """
    temporary = temporary_path(path)
    try:
        content = read_private_file(temporary)[0].rstrip(b"\0")  # what is left of the reserved room
    except (FileNotFoundError, StoreError):
        return False
    if not is_wanted(content):
        return False
    try:
        descriptor = os.open(temporary, os.O_RDWR | _NOFOLLOW | _CLOEXEC | _BINARY)
        try:
            os.ftruncate(descriptor, len(content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        _patiently(os.replace, temporary, path)
        _flush_directory(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    return True


def remove_temporary(path: str) -> None:
    """Remove what a writer of ``path`` has left behind; only for the holder of the file's lock."""
    try:
        os.unlink(temporary_path(path))
    except OSError:  # there is none, or the disk is gone: the next writer removes it
        pass


# What a file system answers that does not flush directories.
_CANNOT_FLUSH = frozenset(getattr(errno, name, -1) for name in ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "EBADF"))


def _flush_directory(path: str) -> None:
    if sys.platform == "win32":
        return
    directory = os.open(os.path.dirname(path), os.O_RDONLY | _CLOEXEC)
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH:
            raise
    finally:
        os.close(directory)


def _quote(path: str) -> str:
    import shlex

    return shlex.quote(path)


def move_away(path: str) -> str:
    """Return the command that moves a file away, for hints."""
    return f"mv {_quote(path)} {_quote(path + '.old')}"


def cannot_read(path: str, error: OSError) -> StoreError:
    """Return the error for a file or directory that the system does not let us read."""
    return StoreError(
        f"cannot read {path}: {error.strerror or error}",
        hint="check its owner and mode: ls -ld " + _quote(path),
    )


_NO_ROOM = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})


def cannot_write(path: str, error: OSError) -> StoreError:
    """Return the error for a file or directory that cannot be written."""
    if error.errno in _NO_ROOM:
        hint = "free some space on that disk, then try again; the stored session is as it was"
    elif error.errno == errno.EROFS:
        hint = "that file system is read-only; use another place: --config-dir DIR"
    else:
        hint = "check the directory's owner and mode: ls -ld " + _quote(os.path.dirname(path))
    return StoreError(f"cannot write {path}: {error.strerror or error}", hint=hint)

"""One holder at a time, across threads, processes and crashes: the lock beside each profile.

Light on purpose: the warm path waits with this while another process renews the session.

The kernel's lock (``flock``, on Windows ``LockFile``) ends with its holder, however that ends. On a
file system without it (some network homes) an exclusively created file stands in. What is lost there:
a crashed holder blocks others until its file is known to be stale, at most `STALE_AFTER` seconds.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from cells_loopback.clock import wall
from cells_loopback.errors import StoreError
from cells_loopback.store.private_file import cannot_write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import TypeVar

    Argument = TypeVar("Argument", int, str)

WAIT_TIMEOUT = 60.0
"""Seconds to wait for the lock; longer than a renewal with all its retries may take."""

STALE_AFTER = 120.0
"""Seconds after which a stand-in lock file is stale though its holder cannot be asked."""

STAND_IN = ".held"
"""What the name of a stand-in adds to the lock's own."""

_MAX_NOTE = 4096
_FIRST_PAUSE, _LONGEST_PAUSE = 0.004, 0.05
_NO_LOCKS = frozenset(
    getattr(errno, name, -1) for name in ("ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL")
)
_HELD = frozenset({errno.EAGAIN, errno.EACCES, errno.EDEADLK})
_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FLAGS |= getattr(os, "O_BINARY", 0)  # Windows would write a note's \n as \r\n, and cut off its end

if sys.platform == "win32":
    import msvcrt

    def _lock_descriptor(descriptor: int) -> None:
        # Far behind the note, which others read while the lock is held.
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock_descriptor(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

    def _share_descriptor(descriptor: int) -> None:
        del descriptor  # every file system of Windows has locks

else:
    import fcntl

    def _lock_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def _share_descriptor(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def has_kernel_locks(path: str, share_descriptor: Callable[[int], None] = _share_descriptor) -> bool:
    """Whether the file system of ``path`` has the kernel's locks, tried on that file, which stays as it is.

    Name a file that nobody locks: a lock file would be shared for a moment. Raises ``OSError`` when it
    cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        share_descriptor(descriptor)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    finally:
        os.close(descriptor)
    return True


class FileLock:
    """The lock of one path. Not reentrant; each user makes its own `FileLock`, also within a process.

    It is made when it is wanted: ``wanted_since`` is that moment by the wall clock. A lock that nobody
    refers to any more, because an exception went through its user, is given back.
    """

    def __init__(self, path: str, lock_descriptor: Callable[[int], None] = _lock_descriptor) -> None:
        self.path = path
        self.wanted_since = wall()
        self._lock_descriptor = lock_descriptor
        self._descriptor = -1
        self._stand_in = ""
        self._process = -1

    @property
    def is_held(self) -> bool:
        """Whether it is held through this object."""
        return self._descriptor >= 0

    def try_acquire(self) -> bool:
        """Take the lock if nobody holds it. Raises `StoreError` when the lock file cannot be made."""
        try:
            descriptor = os.open(self.path, _FLAGS, 0o600)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        try:
            held = self._hold(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if held:
            self._descriptor, self._process = descriptor, os.getpid()
        else:
            os.close(descriptor)
        return held

    def _hold(self, descriptor: int) -> bool:
        try:
            self._lock_descriptor(descriptor)
        except OSError as error:
            if error.errno in _HELD:
                return False
            if error.errno in _NO_LOCKS:
                return self._create_stand_in()
            raise cannot_write(self.path, error) from error
        return self._is_current(descriptor)

    def _is_current(self, descriptor: int) -> bool:
        # `logout` removes the lock file: whoever had opened it before then holds a lock on nothing.
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self.path))
        except OSError:
            return False

    def _create_stand_in(self) -> bool:
        stand_in = self.path + STAND_IN
        try:
            descriptor = os.open(stand_in, _FLAGS | os.O_EXCL, 0o600)
        except FileExistsError:
            _remove_if_stale(stand_in)
            return False
        except OSError as error:
            raise cannot_write(stand_in, error) from error
        self._stand_in = stand_in
        try:
            os.write(descriptor, _holder_name(os.getpid()))
        except OSError:  # a full disk: nobody can tell whose it is, so it is stale only by its age
            pass
        finally:
            os.close(descriptor)
        return True

    def acquire(self, timeout: float = WAIT_TIMEOUT, until: Callable[[], bool] | None = None) -> bool:
        """Wait for the lock; False when ``until()`` came true first and the lock is not needed any more.

        ``until`` is asked between two tries, so that a waiter sees at once what the holder has stored.
        Raises `StoreError` when the lock is still held after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while not self.try_acquire():
            if until is not None and until():
                return False
            if time.monotonic() >= deadline:
                raise self._still_held(timeout)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return True

    def _still_held(self, timeout: float) -> StoreError:
        note = self.read_note().partition("\n")[0]
        return StoreError(
            f"{self.path} is still locked after {timeout:.0f} s" + (f" ({note})" if note else ""),
            hint="wait for it or end it, then try again",
            code="locked",
        )

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two holders lock two files."""
        stand_in, self._stand_in = self._stand_in, ""
        descriptor, self._descriptor = self._descriptor, -1
        # A process forked meanwhile, by another thread, has a copy of us and of the descriptor: the lock
        # must not live on with its copy, and is not its to give back.
        if self._process == os.getpid():
            if stand_in:
                _ignoring_errors(os.unlink, stand_in)
            if descriptor >= 0:
                _ignoring_errors(_unlock_descriptor, descriptor)
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.release()

    def remove(self) -> None:
        """Remove the lock file while holding it, when what it guards is gone for good."""
        try:
            os.unlink(self.path)
        except OSError:  # Windows does not remove an open file: an empty one stays behind
            pass

    def write_note(self, text: str) -> None:
        """Leave a text for others in the lock file, as far as the disk allows. No secret.

        Its first line is for people who wait for the lock.
        """
        content = text.encode("utf-8", "replace")[:_MAX_NOTE]
        try:
            os.lseek(self._descriptor, 0, os.SEEK_SET)
            os.write(self._descriptor, content)
            os.ftruncate(self._descriptor, len(content))
        except OSError:  # a full disk: nothing depends on the note
            pass

    def read_note(self) -> str:
        """Return what the present or the last holder left, '' when there is nothing."""
        try:
            with open(self.path, "rb") as file:
                return file.read(_MAX_NOTE).decode("utf-8", "replace").rstrip()
        except OSError:
            return ""

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def _ignoring_errors(call: Callable[[Argument], object], argument: Argument) -> None:
    # Another process judged the stand-in stale and removed it, or there are no locks to give back.
    try:
        call(argument)
    except OSError:
        pass


def _holder_name(pid: int) -> bytes:
    import platform

    return f"{pid}@{platform.node()}".encode()


def _remove_if_stale(stand_in: str) -> None:
    try:
        with open(stand_in, "rb") as file:
            holder = file.read(300)
            age = time.time() - os.fstat(file.fileno()).st_mtime
    except OSError:
        return
    if age < STALE_AFTER and not _is_gone(holder):
        return
    # Moved aside and looked at again: another waiter may have replaced the stale file meanwhile.
    aside = f"{stand_in}.{os.getpid()}"
    try:
        os.rename(stand_in, aside)
        with open(aside, "rb") as file:
            if file.read(300) != holder:
                os.link(aside, stand_in)
    except OSError:  # another waiter was faster
        pass
    _ignoring_errors(os.unlink, aside)


def _is_gone(holder: bytes) -> bool:
    pid = holder.partition(b"@")[0]
    if sys.platform == "win32" or not pid.isdigit() or holder != _holder_name(int(pid)):
        return False  # a holder on another machine cannot be asked
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False

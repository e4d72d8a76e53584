"""The sleep of the resident keep-alive: until a moment, a changed profile, a changed clock or a signal.

On Linux the kernel does all of the waiting: one ``poll`` on a timer of the wall clock that is cancelled
when that clock jumps, as it does on waking from suspend (timerfd_create(2)), and on a watch of the
profiles' directory (inotify(7)). Nothing runs in between. Elsewhere the sleep is cut into pieces of at
most five minutes, and both clocks and the directory are compared after each.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from cells_loopback.clock import uptime, wall

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Iterator

PIECE = 300.0
"""Seconds of a sleep on systems that tell us neither of a changed clock nor of a changed directory."""

_JUMP = 5.0  # seconds by which two clocks may differ after a piece before one of them has jumped


class Sleeper(Protocol):
    """What the resident keep-alive sleeps with."""

    def sleep(self, until: float) -> None:
        """Return at an instant of the wall clock, or as soon as something may have to be done."""

    def close(self) -> None:
        """Give back what the system lent."""


def make_sleeper(directory: str) -> Sleeper:
    """Return the best sleeper that this system has; ``directory`` is what it watches."""
    if sys.platform == "linux" and sys.maxsize > 2**32:  # where C's long is what the kernel expects
        try:
            return KernelSleeper(directory)
        except (ImportError, OSError, AttributeError):  # no ctypes, no such call, no watch to be had
            pass
    return PieceSleeper(directory)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """Yield a socket that becomes readable with a signal, also one that comes just before the sleep.

    The handler itself raises when Python runs it, which is after the sleep.
    """
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.setblocking(False)
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False) if in_main_thread else -1
    try:
        yield receiver
    finally:
        if in_main_thread:
            signal.set_wakeup_fd(before)
        receiver.close()
        sender.close()


class PieceSleeper:
    """Sleeps in pieces, and looks at the clocks and the directory after each."""

    def __init__(self, directory: str, piece: float = PIECE) -> None:
        self._directory = directory
        self._piece = piece

    def sleep(self, until: float) -> None:
        """See `Sleeper`."""
        seen, before, before_uptime = self._look(), wall(), uptime()
        with _signals() as signalled:
            while (left := until - wall()) > 0:
                if select.select([signalled], [], [], min(left, self._piece))[0]:
                    return
                now, now_uptime = wall(), uptime()
                jumped = abs((now - before) - (now_uptime - before_uptime)) > _JUMP
                slept = now_uptime - before_uptime > self._piece + _JUMP
                if jumped or slept or self._look() != seen:
                    return
                before, before_uptime = now, now_uptime

    def _look(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns
        except OSError:
            return 0

    def close(self) -> None:
        """See `Sleeper`."""


_TFD_TIMER_ABSTIME, _TFD_TIMER_CANCEL_ON_SET = 1, 2
_CLOEXEC_NONBLOCK = 0o2000000 | 0o4000
_IN_MOVED_FROM, _IN_MOVED_TO, _IN_DELETE, _IN_DELETE_SELF, _IN_MOVE_SELF = 0x40, 0x80, 0x200, 0x400, 0x800
_IN_ONLYDIR = 0x1000000
# A profile comes and changes by a rename, and goes by its removal.
_WATCHED = _IN_MOVED_FROM | _IN_MOVED_TO | _IN_DELETE | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR


class KernelSleeper:
    """Sleeps until the kernel says so (Linux)."""

    def __init__(self, directory: str) -> None:
        """Watch at once. Raises ``OSError`` or ``AttributeError`` where the system lacks something."""
        import ctypes

        self._libc = ctypes.CDLL(None, use_errno=True)
        self._path = os.fsencode(directory)
        self._timer = self._call("timerfd_create", 0, _CLOEXEC_NONBLOCK)  # 0 is CLOCK_REALTIME
        try:
            self._changes = self._call("inotify_init1", _CLOEXEC_NONBLOCK)
        except BaseException:
            os.close(self._timer)
            raise
        self._watch()

    def _call(self, name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_long] | None) -> int:
        import ctypes

        result = int(getattr(self._libc, name)(*arguments))
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return result

    def _watch(self) -> bool:
        """Watch the directory that is there now; False when none is."""
        try:
            self._call("inotify_add_watch", self._changes, self._path, _WATCHED)
        except OSError:
            return False
        return True

    def sleep(self, until: float) -> None:
        """See `Sleeper`."""
        import ctypes

        if not self._watch():
            until = min(until, wall() + PIECE)
        seconds, fraction = divmod(max(until, 1.0), 1.0)  # 0 would stop the timer
        # struct itimerspec: the interval, for once zero, and the first expiration.
        moment = (ctypes.c_long * 4)(0, 0, int(seconds), int(fraction * 1e9))
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        try:
            self._call("timerfd_settime", self._timer, flags, moment, None)
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            return  # the clock was set since the last sleep: what was to be awaited may be due
        with _signals() as signalled:
            poll = select.poll()
            for descriptor in (self._timer, self._changes, signalled.fileno()):
                poll.register(descriptor, select.POLLIN)
            poll.poll()
        _drain(self._timer)
        _drain(self._changes)

    def close(self) -> None:
        """See `Sleeper`."""
        os.close(self._timer)
        os.close(self._changes)


def _drain(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65536):
            pass
    except OSError as error:
        # ECANCELED: the clock was set, or the machine slept.
        if error.errno not in {errno.EAGAIN, errno.ECANCELED}:
            raise

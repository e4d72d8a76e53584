"""An end in time for a request whose bytes keep dripping: each read is bounded elsewhere, not their sum."""

from __future__ import annotations

import socket
import threading


class Watchdog:
    """Cuts the connections when a request has not ended in time, and ends it with ``TimeoutError``."""

    def __init__(self, sockets: list[socket.socket], seconds: float) -> None:
        self._sockets = sockets
        self._seconds = seconds
        self._has_cut = self._is_answered = False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def _cut(self) -> None:
        self._has_cut = True
        for sock in self._sockets:
            try:
                # Of the base class: the TLS layer's own shutdown is not safe under a reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
            except OSError:
                pass

    def __enter__(self) -> Watchdog:
        self._timer.start()
        return self

    def note_whole_answer(self) -> None:
        """Let an answer count that is known to be whole, whenever the cut came.

        A process that was stopped finds the answer waiting for it, and its time over. For a renewal that
        answer is the only one there will ever be.
        """
        self._is_answered = True

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        self._timer.cancel()
        self._timer.join()  # a cut that has just begun must not reach the connection of the next request
        # What a cut connection looks like depends on the answer: broken, or as if it had ended there.
        is_late = not self._is_answered if error is None else isinstance(error, Exception)
        if self._has_cut and is_late:
            raise TimeoutError(f"not over after {self._seconds:.0f} s") from None

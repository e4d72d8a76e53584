"""SIGTERM and SIGHUP end a command as Ctrl-C does: through every ``finally``, a loop's work cancelled."""

from __future__ import annotations

import _thread
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType
    from typing import Any, TypeVar

    Result = TypeVar("Result")

_PAUSE = 0.02


class Terminated(SystemExit):
    """SIGTERM or SIGHUP came; ``code`` is the exit code. asyncio lets a ``SystemExit`` through."""


def terminate_on_signals() -> None:
    """Raise `Terminated` in the main thread when either signal comes. An ignored SIGHUP stays ignored.

    To be called in the main thread.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)
    if sys.unraisablehook is not _send_again:
        _other_hooks[:] = [sys.unraisablehook]
        sys.unraisablehook = _send_again


async def cancelled_by_signals(work: Coroutine[Any, Any, Result]) -> Result:
    """Await ``work`` and cancel it on SIGTERM and SIGHUP, so that it ends in order: then raise `Terminated`.

    An exception of a signal handler would leave the loop at once and cancel everything in it, what `work`
    needs for its end included. From Python 3.11 on asyncio does the same for SIGINT, here it is done for
    3.10. For the main thread, after `terminate_on_signals`.
    """
    import asyncio

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    came: list[int] = []

    def cancel(number: int) -> None:
        came.append(number)
        if task is not None:
            task.cancel()

    handlers = _handlers()
    for number in handlers:
        loop.add_signal_handler(number, cancel, number)
    try:
        return await work
    except asyncio.CancelledError:
        if came:
            handlers[came[0]](came[0], None)
        raise
    finally:
        for number, handler in handlers.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _handlers() -> dict[int, Callable[[int, FrameType | None], Any]]:
    """Return the handlers of the signals that asyncio is not to answer by itself; they raise."""
    if sys.platform == "win32":
        return {}
    found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    handlers = {int(number): _terminate for number, handler in found.items() if handler is _terminate}
    if sys.version_info < (3, 11) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        handlers[signal.SIGINT] = signal.default_int_handler
    return handlers


def _terminate(number: int, frame: FrameType | None) -> None:
    del frame
    raise Terminated(128 + number)


_other_hooks = [sys.__unraisablehook__]


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    """Send a signal again whose exception came up where Python can only drop it.

    That is in a finalizer or in the callback of a weak reference, of which every import has some. A login
    that was told to end would otherwise go on to its time limit.
    """
    error = unraisable.exc_value
    if isinstance(error, Terminated) and isinstance(error.code, int):
        number = error.code - 128
    elif isinstance(error, KeyboardInterrupt):
        number = signal.SIGINT
    else:
        _other_hooks[0](unraisable)
        return
    # Not from here, where it would be dropped once more; and without an import, one may be under way.
    _thread.start_new_thread(_send_soon, (_thread.get_ident(), number))


def _send_soon(thread: int, number: int) -> None:
    time.sleep(_PAUSE)
    if sys.platform == "win32":
        _thread.interrupt_main(number)
    else:
        signal.pthread_kill(thread, number)

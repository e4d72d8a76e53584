"""Blocking work beside an event loop, and the first of several answers."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Result = TypeVar("Result")


async def in_thread(work: Callable[[], Result]) -> Result:
    """Run blocking work in a thread that nobody waits for when the caller is cancelled meanwhile."""
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
            outcome.set_exception(error)

    waiting = asyncio.wrap_future(outcome)
    # Not cancellable from outside: the work goes on, and its result is then nobody's.
    outcome.set_running_or_notify_cancel()
    threading.Thread(target=run, daemon=True, name="cells-loopback login").start()
    return await waiting


async def in_thread_to_its_end(work: Callable[[], Result]) -> Result:
    """Run blocking work that cannot be taken back: a cancellation of the caller comes too late for it."""
    task = asyncio.ensure_future(in_thread(work))
    while not task.done():
        await unless_cancelled(asyncio.wait([task]))
    return task.result()


async def unless_cancelled(waiting: Coroutine[Any, Any, object]) -> bool:
    """Wait; a cancellation ends the waiting and nothing else. Returns whether it was waited to the end."""
    try:
        await waiting
    except asyncio.CancelledError:
        return False
    return True


async def first_of(waiting: list[Coroutine[Any, Any, Result]]) -> Result:
    """Return the first result and cancel the others."""
    tasks = [asyncio.ensure_future(one) for one in waiting]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(iter(done)).result()
    finally:
        for task in tasks:
            task.cancel()

"""Work beside an event loop: what a cancellation stops, and what it comes too late for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from cells_loopback.process.background import first_of, in_thread, in_thread_to_its_end, unless_cancelled


async def cancelled_while_working(work: asyncio.Task[str], began: threading.Event) -> asyncio.Task[str]:
    await asyncio.sleep(0)
    await asyncio.to_thread(began.wait, 20)
    work.cancel()
    await asyncio.sleep(0)
    return work


def test_nobody_waits_for_a_thread_after_a_cancellation() -> None:
    began, end = threading.Event(), threading.Event()

    async def main() -> None:
        work = asyncio.ensure_future(in_thread(lambda: (began.set(), end.wait(20), "done")[2]))
        with pytest.raises(asyncio.CancelledError):
            await (await cancelled_while_working(work, began))

    asyncio.run(main())
    end.set()


@pytest.mark.parametrize("fails", [False, True])
def test_what_cannot_be_taken_back_ends_as_it_would_without_a_cancellation(fails: bool) -> None:
    began, end = threading.Event(), threading.Event()

    def save() -> str:
        began.set()
        end.wait(20)
        if fails:
            raise ValueError("the disk is full")
        return "stored"

    async def main() -> str:
        work = await cancelled_while_working(asyncio.ensure_future(in_thread_to_its_end(save)), began)
        assert not work.done()
        end.set()
        return await work

    if fails:
        with pytest.raises(ValueError, match="the disk is full"):
            asyncio.run(main())
    else:
        assert asyncio.run(main()) == "stored"


def test_a_cancellation_may_end_a_waiting_and_nothing_else() -> None:
    async def main() -> tuple[bool, bool]:
        whole = await unless_cancelled(asyncio.sleep(0))
        waiting = asyncio.ensure_future(unless_cancelled(asyncio.sleep(60)))
        await asyncio.sleep(0)
        waiting.cancel()
        return whole, await waiting

    assert asyncio.run(main()) == (True, False)


def test_the_first_answer_ends_the_waiting_for_the_others() -> None:
    ended: list[str] = []

    async def wait_for_ever() -> str:
        try:
            return await asyncio.Future()
        finally:
            ended.append("the other")

    async def answer() -> str:
        return "the first"

    async def main() -> str:
        return await first_of([wait_for_ever(), answer()])

    assert asyncio.run(main()) == "the first"
    assert ended == ["the other"]

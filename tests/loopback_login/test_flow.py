"""The parts of the login's story that no whole login shows."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

import pytest
from examples import PROFILE, REQUEST

from cells_loopback.loopback.callback_request import CallbackResponse
from cells_loopback.loopback_login import flow as loopback_login
from cells_loopback.loopback_login.flow import _Login
from cells_loopback.loopback_login.opening import Surroundings
from cells_loopback.loopback_login.options import LoginOptions, LoginPlan
from cells_loopback.store.profiles import ProfileStore, Settings

if TYPE_CHECKING:
    from pathlib import Path

ANSWER = CallbackResponse(code="c", state=REQUEST.state.reveal())


class Browser:
    """A browser's process that ends with an error when it is told to."""

    status: int | None = None

    def poll(self) -> int | None:
        return self.status


class Server:
    """A callback server whose answer comes when it is told to."""

    def __init__(self) -> None:
        self.answered = asyncio.Event()
        self.browser_is_due = True

    def expect_no_browser(self) -> None:
        self.browser_is_due = False

    async def wait(self) -> CallbackResponse:
        await self.answered.wait()
        return ANSWER


@pytest.mark.parametrize("is_first", ["failure", "answer"])
def test_a_browser_is_watched_until_the_answer_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_first: str
) -> None:
    monkeypatch.setattr(loopback_login, "_BROWSER_PAUSE", 0.001)
    told: list[str] = []
    has_told = asyncio.Event()
    surroundings = Surroundings(on_event=lambda event: (told.append(event.event), has_told.set()))
    plan = LoginPlan("work", PROFILE.site, False, PROFILE.client, Settings(), None)
    login = _Login(plan, LoginOptions(), surroundings, ProfileStore(str(tmp_path)))

    async def main() -> None:
        server, browser = Server(), Browser()
        waiting: Any = login._response(
            REQUEST, cast("Any", server), time.monotonic() + 20, cast("Any", browser)
        )
        response = asyncio.ensure_future(waiting)
        if is_first == "failure":
            browser.status = 3
            await has_told.wait()
        server.answered.set()
        await response
        assert server.browser_is_due == (is_first == "answer")
        browser.status = 3
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert told == (["browser_failed"] if is_first == "failure" else []) + ["callback_received"]

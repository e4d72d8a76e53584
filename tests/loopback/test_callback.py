"""One login's server: the browser is sent off, brings the answer, and sees how it ended."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import pytest
from loopback_client import (
    ANSWER,
    AUTHORIZATION_URL,
    PATH,
    START,
    STATE,
    asynchronous,
    bound,
    sending_off,
    serving,
)

from cells_loopback.loopback import callback, pages
from cells_loopback.loopback.connections import Limits

if TYPE_CHECKING:
    from loopback_client import Client, Login

SUCCESS = pages.success("https://files.example.com", "alice")
FAILURE = pages.failure("The server refused the login.")
PATIENT = Limits(head_seconds=60, linger_seconds=60, closing_seconds=60)
"""Whatever is waited out with these is seen, on a busy machine too."""


async def finished(login: Login, page: pages.ResultPage = SUCCESS) -> Client:
    """A browser that has brought the answer and been told where the page is."""
    browser = await login.opened(ANSWER)
    await login.server.wait()
    login.server.finish(page)
    return browser


@asynchronous
async def test_the_answer_reaches_the_login_and_the_browser_waits_for_its_end() -> None:
    async with serving() as login:
        browser = await login.opened(ANSWER)
        assert await login.server.wait() == {"code": "the-code", "state": STATE}
        reply = asyncio.ensure_future(browser.reply())
        await login.round_trip()
        assert not reply.done()
        login.server.finish(SUCCESS)
        assert (await reply).status == 303


@asynchronous
async def test_the_browser_ends_at_an_address_without_the_code() -> None:
    async with serving() as login:
        browser = await finished(login)
        redirect = await browser.reply()
        assert redirect.location.startswith("/result/")
        assert "the-code" not in redirect.location
        assert STATE not in redirect.location
        await browser.get(login.port, redirect.location)
        page = await browser.reply()
        assert page.status == 200
        assert "You are logged in" in page.body
        assert await login.server.delivered(1)


@pytest.mark.parametrize("turns", [1, 2, 3])
@asynchronous
async def test_a_login_that_is_cancelled_while_its_server_starts_leaves_no_listener(turns: int) -> None:
    async with bound() as login:
        starting = asyncio.ensure_future(login.server.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        try:
            await starting
        except asyncio.CancelledError:
            with pytest.raises(ConnectionRefusedError):
                await login.connect()


@asynchronous
async def test_an_error_answer_with_the_right_state_is_an_answer() -> None:
    async with serving() as login:
        browser = await login.opened(f"{PATH}?error=access_denied&error_description=no+thanks&state={STATE}")
        answer = await login.server.wait()
        assert answer["error"] == "access_denied"
        assert answer["error_description"] == "no thanks"
        login.server.finish(FAILURE)
        assert "The login failed" in (await browser.reply()).body


@asynchronous
async def test_a_client_that_does_not_follow_has_the_page_already(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "FOLLOW_PATIENCE", {True: 60.0, False: 60.0})
    async with serving(limits=PATIENT) as login:
        client = await finished(login)
        assert "You are logged in" in (await client.reply()).body
        began = time.monotonic()
        await client.close()
        assert await login.server.delivered(5)
        assert time.monotonic() - began < 4


@pytest.mark.parametrize(("lines", "is_waited_for"), [([], False), (["Sec-Fetch-Mode: navigate"], True)])
@asynchronous
async def test_only_a_browser_has_long_to_come_for_the_page(
    monkeypatch: pytest.MonkeyPatch, lines: list[str], is_waited_for: bool
) -> None:
    monkeypatch.setattr(callback, "FOLLOW_PATIENCE", {True: 5.0, False: 0.05})
    async with serving() as login:
        client = await login.connect()
        await client.get(login.port, ANSWER, *lines)
        await login.server.wait()
        login.server.finish(SUCCESS)
        await client.reply()
        assert await login.server.delivered(0.2 if is_waited_for else 5) is not is_waited_for


@asynchronous
async def test_a_client_may_follow_on_a_new_connection() -> None:
    async with serving() as login:
        first = await login.connect()
        await first.get(login.port, ANSWER, "Connection: close")
        await login.server.wait()
        login.server.finish(SUCCESS)
        redirect = await first.reply()
        assert await first.rest() == b""
        assert (await login.get(redirect.location)).status == 200
        assert await login.server.delivered(1)


@asynchronous
async def test_a_browser_that_went_away_while_waiting_is_not_waited_for() -> None:
    async with serving() as login:
        browser = await finished(login)
        await browser.close()
        assert await asyncio.wait_for(login.server.delivered(5), 2) is not None


@asynchronous
async def test_without_a_browser_nobody_is_waited_for() -> None:
    async with serving() as login:
        login.server.finish(FAILURE)
        assert await asyncio.wait_for(login.server.delivered(5), 1) is False


@asynchronous
async def test_the_same_request_gets_the_same_answer_before_and_after_the_end() -> None:
    async with serving() as login:
        first, second = await login.opened(ANSWER), await login.opened(ANSWER)
        await login.server.wait()
        login.server.finish(SUCCESS)
        replies = [await first.reply(), await second.reply(), await login.get(ANSWER)]
        assert {reply.location for reply in replies} == {replies[0].location}
        assert {reply.body for reply in replies} == {replies[0].body}
        assert login.rejected == []


@asynchronous
async def test_another_code_with_the_right_state_is_refused() -> None:
    async with serving() as login:
        await login.opened(ANSWER)
        await login.server.wait()
        reply = await login.get(f"{PATH}?code=another&state={STATE}")
        assert reply.status == 400
        assert login.rejected == ["already_answered"]
        assert (await login.server.wait())["code"] == "the-code"


@asynchronous
async def test_a_second_authorization_happens_in_the_same_window() -> None:
    async with serving() as login:
        browser = await login.opened(ANSWER)
        await login.server.wait()
        login.server.expect("t" * 43)
        assert login.server.redirect("https://files.example.com/again")
        reply = await browser.reply()
        assert (reply.status, reply.location) == (303, "https://files.example.com/again")
        assert (await login.get(ANSWER)).location == reply.location  # a reload, or the way back
        assert (await login.get(f"{PATH}?code=other&state={STATE}")).status == 400
        assert login.rejected == ["state_mismatch"]
        browser = await login.opened(f"{PATH}?code=second&state={'t' * 43}")
        assert (await login.server.wait())["code"] == "second"
        login.server.finish(SUCCESS)
        assert (await browser.reply()).location.startswith("/result/")


@asynchronous
async def test_there_is_no_window_to_send_on_where_no_browser_brought_the_answer() -> None:
    async with serving() as login:
        assert not login.server.redirect("https://files.example.com/again")


@asynchronous
async def test_an_answer_that_comes_after_the_end_is_told_the_end() -> None:
    async with serving() as login:
        login.server.finish(FAILURE)
        assert "The login failed" in (await login.get(ANSWER)).body


@asynchronous
async def test_before_any_state_is_expected_no_answer_is_taken() -> None:
    async with bound() as login:
        await login.server.start()
        assert (await login.get(ANSWER)).status == 400
        assert (await login.get(f"{PATH}?code=x&state=")).status == 400
        assert login.rejected == ["state_mismatch"] * 2


@asynchronous
async def test_a_browser_may_connect_before_the_server_is_up() -> None:
    async with bound() as login:
        browser = await login.opened(ANSWER)
        login.server.expect(STATE)
        await login.server.start()
        assert (await login.server.wait())["code"] == "the-code"
        login.server.finish(SUCCESS)
        assert (await browser.reply()).status == 303


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@asynchronous
async def test_the_browser_may_take_localhost_for_either_address(address: str) -> None:
    async with serving() as login:
        browser = await login.connect(address)
        await browser.get(login.port, ANSWER)
        assert await login.server.wait()


# The start address


@asynchronous
async def test_the_start_address_leads_to_the_authorization_url_once() -> None:
    async with sending_off() as login:
        login.server.set_authorization_url(AUTHORIZATION_URL)
        first = await login.get(START)
        assert (first.status, first.location) == (303, AUTHORIZATION_URL)
        second = await login.get(START)
        assert second.status == 410
        assert "Nothing left to do here" in second.body
        assert AUTHORIZATION_URL not in second.body
        assert login.rejected == ["already_used"]


@asynchronous
async def test_a_browser_waits_at_the_start_until_the_authorization_url_is_known() -> None:
    async with sending_off() as login:
        browser = await login.opened(START)
        login.server.set_authorization_url(AUTHORIZATION_URL)
        assert (await browser.reply()).location == AUTHORIZATION_URL


@asynchronous
async def test_a_browser_that_reloads_while_it_waits_at_the_start_is_sent_on() -> None:
    async with sending_off() as login:
        first = await login.opened(START)
        await login.round_trip()
        await first.close()
        second = await login.opened(START)
        await login.round_trip()
        login.server.set_authorization_url(AUTHORIZATION_URL)
        assert (await second.reply()).location == AUTHORIZATION_URL


@asynchronous
async def test_nobody_reads_the_authorization_url_without_using_the_start_address_up() -> None:
    async with sending_off() as login:
        eavesdropper = await login.opened(START)
        eavesdropper.half_close()
        await login.round_trip()
        login.server.set_authorization_url(AUTHORIZATION_URL)
        assert STATE.encode() not in await eavesdropper.rest()
        assert (await login.get(START)).location == AUTHORIZATION_URL


@asynchronous
async def test_a_browser_at_the_start_sees_why_there_is_no_login() -> None:
    async with sending_off() as login:
        browser = await login.opened(START)
        login.server.finish(FAILURE)
        redirect = await browser.reply()
        await browser.get(login.port, redirect.location)
        assert "The login failed" in (await browser.reply()).body
        assert await login.server.delivered(1)


@asynchronous
async def test_a_browser_that_is_still_starting_is_waited_for_to_show_it_the_failure() -> None:
    async with sending_off() as login:
        login.server.finish(FAILURE)
        delivered = asyncio.ensure_future(login.server.delivered(5))
        redirect = await login.get(START)
        await login.get(redirect.location)
        assert await delivered


@pytest.mark.parametrize(
    ("method", "lines", "status"),
    [
        ("HEAD", [], 405),
        ("OPTIONS", ["Access-Control-Request-Method: GET"], 405),
        ("GET", ["Sec-Purpose: prefetch;prerender"], 503),
        ("GET", ["Purpose: prefetch"], 503),
        ("GET", ["X-Moz: prefetch"], 503),
        ("GET", ["Sec-Fetch-Dest: image", "Sec-Fetch-Site: cross-site"], 403),
    ],
)
@asynchronous
async def test_only_a_person_going_there_uses_the_start_address_up(
    method: str, lines: list[str], status: int
) -> None:
    async with sending_off() as login:
        login.server.set_authorization_url(AUTHORIZATION_URL)
        client = await login.connect()
        head = [f"{method} {START} HTTP/1.1", f"Host: localhost:{login.port}", *lines, "", ""]
        await client.send("\r\n".join(head).encode())
        assert int((await client.rest()).split()[1]) == status
        assert (await login.get(START)).location == AUTHORIZATION_URL


@asynchronous
async def test_the_addresses_for_the_browser_are_not_found_by_guessing() -> None:
    async with sending_off() as login, serving() as other:
        for path in ("/start/", START[:-1], START + "r", START.upper()):
            assert (await login.get(path)).status == 404
        assert (await other.get(START)).status == 404
        results = {(await (await finished(each)).reply()).location for each in (login, other)}
        assert len(results) == 2
        assert all(len(result.removeprefix("/result/")) == 43 for result in results)


# Closing


@asynchronous
async def test_after_closing_nobody_listens_and_no_connection_is_left() -> None:
    async with serving(limits=PATIENT) as login:
        idle, waiting = await login.connect(), await login.opened(ANSWER)
        await login.server.wait()
        began = time.monotonic()
        await login.server.aclose()
        assert time.monotonic() - began < 4
        assert await idle.rest() == b""
        assert await waiting.rest() == b""
        for address in ("127.0.0.1", "::1"):
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(address, login.port)
        await login.server.aclose()


@asynchronous
async def test_a_server_that_was_never_started_closes_its_sockets() -> None:
    async with bound() as login:
        await login.server.aclose()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", login.port)


@asynchronous
async def test_closing_right_after_the_end_still_writes_the_redirect() -> None:
    async with serving() as login:
        browser = await finished(login)
        await login.server.aclose()
        assert "You are logged in" in (await browser.reply()).body


@asynchronous
async def test_a_browser_that_keeps_its_connection_open_does_not_delay_the_end() -> None:
    async with serving(limits=PATIENT) as login:
        preconnected = await login.connect()
        browser = await finished(login)
        redirect = await browser.reply()
        await preconnected.get(login.port, redirect.location)
        assert (await preconnected.reply()).status == 200
        began = time.monotonic()
        assert await login.server.delivered(5)
        await login.server.aclose()
        assert time.monotonic() - began < 4


@asynchronous
async def test_waiting_for_the_answer_can_be_given_up_and_taken_up_again() -> None:
    async with serving() as login:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(login.server.wait(), 0.02)
        await login.opened(ANSWER)
        assert await asyncio.wait_for(login.server.wait(), 1)


@asynchronous
async def test_nothing_here_prints_the_code(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    asyncio.get_running_loop().set_debug(True)
    async with serving() as login:
        await login.opened(ANSWER)
        answer = await login.server.wait()
        await login.ask(
            f"GET {ANSWER} HTTP/1.1\r\nHost: localhost:{login.port}\r\nbad header\r\n\r\n".encode()
        )
        assert "the-code" not in repr(answer) + repr(login.server._answers) + repr(login.server)
        assert "the-code" not in caplog.text
        assert STATE not in caplog.text


@asynchronous
async def test_a_slow_network_between_browser_and_page_loses_nothing() -> None:
    """A browser on the other end of an SSH tunnel may read late: the page was handed over whole."""
    async with serving(limits=Limits(closing_seconds=5)) as login:
        with socket.create_connection(("127.0.0.1", login.port)) as browser:
            browser.sendall(f"GET {ANSWER} HTTP/1.1\r\nHost: localhost:{login.port}\r\n\r\n".encode())
            await login.server.wait()
            login.server.finish(SUCCESS)
            await login.server.aclose()
            received = b""
            while chunk := browser.recv(65536):
                received += chunk
            assert received.endswith(b"</html>\n")

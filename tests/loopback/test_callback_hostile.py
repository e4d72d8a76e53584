"""The port is known to every page and every program: whatever they send, the login goes on undelayed."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING

import loopback_attackers
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback_client import ANSWER, PATH, STATE, asynchronous, request, serving

from cells_loopback.loopback import callback, pages
from cells_loopback.loopback.connections import Limits

if TYPE_CHECKING:
    from loopback_client import Login

SUCCESS = pages.success("https://files.example.com", "alice")
QUICK = Limits(head_seconds=0.2, linger_seconds=0.2)
TLS_HELLO = bytes.fromhex("16030100f8010000f40303") + b"\x00" * 240


async def still_logs_in(login: Login) -> None:
    """The right answer is taken and its browser gets the page, at once."""
    began = time.monotonic()
    browser = await login.opened(ANSWER)
    await login.server.wait()
    login.server.finish(SUCCESS)
    redirect = await browser.reply()
    await browser.get(login.port, redirect.location)
    assert "You are logged in" in (await browser.reply()).body
    assert await login.server.delivered(1)
    assert time.monotonic() - began < 1.5


REFUSED = {
    "another path": (request("/", host="{host}"), 404, "not_found"),
    "favicon": (request("/favicon.ico", host="{host}"), 404, "not_found"),
    "a path below": (request(PATH + "/x", host="{host}"), 404, "not_found"),
    "an escaped path": (request("/servers/%63allback?state=x", host="{host}"), 404, "not_found"),
    "no state": (request(PATH + "?code=x", host="{host}"), 400, "state_missing"),
    "no query": (request(PATH, host="{host}"), 400, "state_missing"),
    "another state": (request(PATH + "?code=x&state=y", host="{host}"), 400, "state_mismatch"),
    "an error for another state": (
        request(PATH + "?error=access_denied&state=y", host="{host}"),
        400,
        "state_mismatch",
    ),
    "an error without a state": (request(PATH + "?error=access_denied", host="{host}"), 400, "state_missing"),
    "a longer state": (request(f"{ANSWER}x", host="{host}"), 400, "state_mismatch"),
    "two codes": (request(f"{ANSWER}&code=x", host="{host}"), 400, "repeated_parameter"),
    "two states": (request(f"{ANSWER}&state={STATE}", host="{host}"), 400, "repeated_parameter"),
    "two errors": (request(f"{ANSWER}&error=a&error=b", host="{host}"), 400, "repeated_parameter"),
    "two issuers": (request(f"{ANSWER}&iss=a&iss=b", host="{host}"), 400, "repeated_parameter"),
    "many parameters": (request(f"{ANSWER}{'&a' * 99}", host="{host}"), 400, "malformed"),
    "a query that is not UTF-8": (request(f"{ANSWER}&a=%ff", host="{host}"), 400, "malformed"),
    "raw UTF-8": (request(f"{ANSWER}&a=\xc3\xa9", host="{host}"), 400, "malformed"),
    "POST": (request(ANSWER, method="POST", host="{host}"), 405, "method_not_allowed"),
    "POST with a body": (
        request(ANSWER, "Content-Length: 5", method="POST", host="{host}") + b"a=b&c",
        405,
        "method_not_allowed",
    ),
    "PUT in chunks": (
        request(ANSWER, "Transfer-Encoding: chunked", method="PUT", host="{host}") + b"5\r\nhello\r\n",
        405,
        "method_not_allowed",
    ),
    "HEAD": (request(ANSWER, method="HEAD", host="{host}"), 405, "method_not_allowed"),
    "private network preflight": (
        request(
            ANSWER,
            "Origin: https://evil.example",
            "Access-Control-Request-Method: GET",
            "Access-Control-Request-Private-Network: true",
            method="OPTIONS",
            host="{host}",
        ),
        405,
        "method_not_allowed",
    ),
    "OPTIONS *": (request("*", method="OPTIONS", host="{host}"), 405, "method_not_allowed"),
    "CONNECT": (request("evil.example:443", method="CONNECT", host="{host}"), 405, "method_not_allowed"),
    "a rebound name": (request(ANSWER, host="evil.example:{port}"), 421, "wrong_host"),
    "localhost on another port": (request(ANSWER, host="localhost:1"), 421, "wrong_host"),
    "localhost without a port": (request(ANSWER, host="localhost"), 421, "wrong_host"),
    "a name that begins like ours": (
        request(ANSWER, host="localhost:{port}.evil.example"),
        421,
        "wrong_host",
    ),
    "localhost with a dot": (request(ANSWER, host="localhost.:{port}"), 421, "wrong_host"),
    "an empty host": (request(ANSWER, host=""), 421, "wrong_host"),
    "no host": (f"GET {ANSWER} HTTP/1.0\r\n\r\n".encode(), 421, "wrong_host"),
    "an absolute target": (request("http://{host}" + ANSWER, host="{host}"), 400, "malformed"),
    "a foreign absolute target": (request("http://evil.example/", host="{host}"), 400, "malformed"),
    "an image on a page": (
        request(ANSWER, "Sec-Fetch-Dest: image", "Sec-Fetch-Site: cross-site", host="{host}"),
        403,
        "not_a_navigation",
    ),
    "a frame": (
        request(ANSWER, "Sec-Fetch-Dest: iframe", "Sec-Fetch-Mode: navigate", host="{host}"),
        403,
        "not_a_navigation",
    ),
    "a script's fetch": (
        request(ANSWER, "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: cross-site", host="{host}"),
        403,
        "not_a_navigation",
    ),
    "prefetch": (request(ANSWER, "Sec-Purpose: prefetch", host="{host}"), 503, "prefetch"),
    "a header without a colon": (request("/", "nonsense", host="{host}"), 400, "malformed"),
    "a NUL in a header": (request("/", "A: \x00", host="{host}"), 400, "malformed"),
    "no version": (b"GET /\r\n\r\n", 400, "malformed"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed"),
    "TLS": (TLS_HELLO, 400, "malformed"),
    "binary": (bytes(range(256)), 400, "malformed"),
    "empty lines": (b"\r\n\r\n\r\n\r\n", 400, "malformed"),
    "a long request line": (request("/" + "a" * 20_000, host="{host}"), 431, "too_large"),
    "one long header": (request("/", "A: " + "a" * 20_000, host="{host}"), 431, "too_large"),
    "many headers": (request("/", *["A: b"] * 5_000, host="{host}"), 431, "too_large"),
    "a long header in a short head": (request("/", "A: " + "a" * 12_000, host="{host}"), 400, "malformed"),
}


@pytest.mark.parametrize(("data", "status", "reason"), REFUSED.values(), ids=REFUSED.keys())
@asynchronous
async def test_everything_else_is_answered_reported_and_changes_nothing(
    data: bytes, status: int, reason: str
) -> None:
    async with serving() as login:
        port = str(login.port).encode()
        client = await login.connect()
        await client.send(data.replace(b"{host}", b"localhost:" + port).replace(b"{port}", port))
        answer = await client.rest()
        assert int(answer.split()[1]) == status
        assert login.rejected == [reason]
        head = answer.partition(b"\r\n\r\n")[0].decode().lower()
        assert "cache-control: no-store" in head
        assert "content-security-policy: default-src 'none'" in head
        assert "access-control" not in head
        assert "aiohttp" not in head
        assert "python" not in head
        if status == 405:
            assert "allow: get" in head
        await still_logs_in(login)


@pytest.mark.parametrize(
    ("redirect_host", "host", "accepted"),
    [
        ("localhost", "localhost:{port}", True),
        ("localhost", "LOCALHOST:{port}", True),
        ("localhost", "127.0.0.1:{port}", True),
        ("localhost", "[::1]:{port}", True),
        ("127.0.0.1", "127.0.0.1:{port}", True),
        ("127.0.0.1", "localhost:{port}", False),
        ("::1", "[::1]:{port}", True),
        ("::1", "127.0.0.1:{port}", False),
    ],
)
@asynchronous
async def test_only_the_redirect_uris_own_authorities_are_answered(
    redirect_host: str, host: str, accepted: bool
) -> None:
    async with serving(redirect_host) as login:
        client = await login.connect("::1" if ":" in redirect_host else "127.0.0.1")
        await client.send(request("/", host=host.format(port=login.port)))
        assert (await client.reply()).status == (404 if accepted else 421)


@asynchronous
async def test_a_service_worker_that_a_developer_left_on_the_port_may_pass_the_answer_on() -> None:
    async with serving() as login:
        client = await login.connect()
        await client.get(login.port, ANSWER, "Sec-Fetch-Dest: empty", "Sec-Fetch-Site: same-origin")
        assert await login.server.wait()


@asynchronous
async def test_one_kind_of_rejection_is_reported_a_few_times() -> None:
    async with serving() as login:
        for _ in range(20):
            await login.get("/")
        await login.get(PATH)
        assert login.rejected == ["not_found"] * callback.REPORTS_PER_REASON + ["state_missing"]


@asynchronous
async def test_what_follows_a_request_is_not_read() -> None:
    async with serving() as login:
        client = await login.connect()
        follower = request(ANSWER, host=f"localhost:{login.port}")
        await client.send(request("/", host=f"localhost:{login.port}") + follower * 50)
        assert (await client.rest()).count(b"HTTP/1.1") == 1
        assert not login.server._received.is_set()


@asynchronous
async def test_a_client_that_says_nothing_is_told_so_and_closed() -> None:
    async with serving(limits=QUICK) as login:
        client = await login.connect()
        assert b" 408 " in await client.rest()
        assert login.rejected == ["request_timeout"]


@asynchronous
async def test_a_client_that_drips_is_cut_off_at_the_time_limit() -> None:
    async with serving(limits=QUICK) as login:
        client = await login.connect()
        rest = asyncio.ensure_future(client.rest())
        for byte in request("/", "A: " + "a" * 500):
            if rest.done():
                break
            await client.send(bytes([byte]))
            await asyncio.sleep(0.01)
        assert b" 408 " in await rest


@asynchronous
async def test_a_request_in_pieces_is_a_request() -> None:
    async with serving() as login:
        client = await login.connect()
        for byte in request(ANSWER, host=f"localhost:{login.port}"):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert await login.server.wait()


@asynchronous
async def test_half_a_request_whose_rest_will_never_come_is_refused_at_once() -> None:
    async with serving() as login:
        client = await login.connect()
        await client.send(b"GET /servers/callb")
        client.half_close()
        assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
        assert login.rejected == ["malformed"]
        await still_logs_in(login)


@asynchronous
async def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    async with serving() as login:
        client = await login.opened(ANSWER)
        client.half_close()
        await login.server.wait()
        await login.round_trip()
        login.server.finish(SUCCESS)
        assert "You are logged in" in (await client.reply()).body


@asynchronous
async def test_a_client_that_resets_its_connection_is_forgotten() -> None:
    async with serving() as login:
        for data in (b"", b"GET /", request(ANSWER, host=f"localhost:{login.port}")):
            with socket.create_connection(("127.0.0.1", login.port)) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(data)
                await login.round_trip()
        await still_logs_in(login)


@asynchronous
async def test_a_client_that_resets_its_connection_in_the_middle_of_a_body_is_forgotten() -> None:
    async with serving() as login:
        with socket.create_connection(("127.0.0.1", login.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            host = f"localhost:{login.port}"
            client.sendall(request(PATH, "Content-Length: 9", method="POST", host=host))
        await login.round_trip()
        assert set(login.rejected) <= {"method_not_allowed"}
        await still_logs_in(login)


@asynchronous
async def test_a_flood_of_idle_connections_costs_only_the_oldest_of_them() -> None:
    async with serving(limits=Limits(connections=8)) as login:
        waiting = await login.opened(ANSWER)
        await login.server.wait()
        idle = [await login.connect() for _ in range(40)]
        await login.round_trip()
        assert login.server._connections is not None
        assert len(login.server._connections) <= 8
        assert await idle[0].rest() == b""
        login.server.finish(SUCCESS)
        assert "You are logged in" in (await waiting.reply()).body


@asynchronous
async def test_the_login_ends_at_once_in_the_middle_of_all_of_it() -> None:
    async with serving() as login:
        attackers = await asyncio.create_subprocess_exec(
            sys.executable, loopback_attackers.__file__, str(login.port), stdout=asyncio.subprocess.PIPE
        )
        try:
            assert attackers.stdout is not None
            assert await attackers.stdout.readline() == b"attacking\n"
            began = time.monotonic()
            await still_logs_in(login)
            await login.server.aclose()
            assert time.monotonic() - began < 2
        finally:
            attackers.kill()
            await attackers.wait()


HEAD_PIECES = st.sampled_from(
    [
        *(
            b"GET ",
            b"POST ",
            b"/",
            PATH.encode(),
            b"?",
            b"code=",
            b"state=",
            STATE.encode()[:-1],
            b"&",
            b"%00",
        ),
        *(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b" HTTP/9.9", b"\r\n", b"\n", b"\r", b"\r\n\r\n", b": "),
        *(b"Host: localhost:{port}\r\n", b"Host: localhost\r\n", b"Host:"),
        *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Expect: 100-continue\r\n"),
        *(
            b"Upgrade: websocket\r\n",
            b"Connection: upgrade\r\n",
            b"\x00",
            b"\xff",
            b"\x16\x03\x01",
            b"a" * 9000,
        ),
    ]
)
WHOLE_HEADS = st.tuples(st.lists(HEAD_PIECES, max_size=8).map(b"".join), st.booleans()).map(
    lambda head: b"GET /" * head[1] + head[0] + b" HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        WHOLE_HEADS | st.lists(HEAD_PIECES | st.binary(max_size=40), max_size=12).map(b"".join),
        min_size=1,
        max_size=8,
    )
)
def test_no_bytes_end_in_an_error_a_hang_or_an_accepted_login(requests: list[bytes]) -> None:
    errors: list[dict[str, object]] = []

    @asynchronous
    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
        async with serving(limits=QUICK) as login:
            for data in requests:
                client = await login.connect()
                try:
                    await client.send(data.replace(b"{port}", str(login.port).encode()))
                    client.half_close()
                except ConnectionError:
                    continue
                answer = await client.rest()
                assert answer == b"" or answer.startswith(b"HTTP/1.")
                assert b"internal_error" not in answer
            assert "internal_error" not in login.rejected
            assert not login.server._received.is_set()
            await still_logs_in(login)

    scenario()
    assert errors == []

"""The server behind a typed address is found in the scheme that answers, with or without httpx."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from raw_server import answering, dripping, http, serving

from cells_loopback.errors import (
    CellsLoopbackError,
    LoginFailedError,
    ServerUnavailableError,
    UntrustedServerError,
)
from cells_loopback.http import discovery, transport
from cells_loopback.http.discovery import find_server
from cells_loopback.http.trust import Trust
from cells_loopback.protocol.site import Site, parse_site
from cells_loopback.testing import CellsServer, Fault

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from raw_server import RawServer


def document(server: RawServer) -> bytes:
    issuer = f"{server.site.url}/oidc"
    return json.dumps(
        {
            "issuer": issuer,
            "authorization_endpoint": f"{issuer}/oauth2/auth",
            "token_endpoint": f"{issuer}/oauth2/token",
        }
    ).encode()


def test_a_server_is_found_without_importing_httpx(server: CellsServer) -> None:
    code = (
        "import sys; from cells_loopback.protocol.site import parse_site;"
        "from cells_loopback.http.trust import Trust;"
        "from cells_loopback.http.discovery import find_server;"
        f"site, metadata = find_server(parse_site({server.site!r}), Trust(), try_http=False);"
        "print(metadata.issuer, 'httpx' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [f"{server.site}/oidc/", "False"]


def test_over_tls_too() -> None:
    with CellsServer(tls=True) as server:
        site = parse_site(server.site)
        assert find_server(site, Trust(ca_bundle=server.ca_file), try_http=False)[0] == site
        assert find_server(site, Trust(insecure=True), try_http=False)[0] == site
        assert server.count("discovery") == 2


def test_a_local_server_without_tls_is_found_where_no_scheme_was_typed(server: CellsServer) -> None:
    plain = parse_site(server.site)
    typed = replace(plain, scheme="https")
    assert find_server(typed, Trust(), try_http=True)[0] == plain
    with pytest.raises(ServerUnavailableError) as caught:
        find_server(typed, Trust(), try_http=False)
    assert caught.value.code == "no_tls"


def test_where_neither_answers_the_first_failure_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(ServerUnavailableError) as caught:
        find_server(Site("https", "127.0.0.1", port), Trust(), try_http=True)
    assert caught.value.code == "refused"
    assert f"https://127.0.0.1:{port}" in caught.value.message


def test_a_certificate_that_is_not_trusted_is_an_answer_and_http_is_not_tried() -> None:
    with CellsServer(tls="self-signed") as server:
        with pytest.raises(UntrustedServerError) as caught:
            find_server(parse_site(server.site), Trust(), try_http=True)
        assert caught.value.code == "certificate"
        assert server.requests == []


def test_something_else_on_the_port_is_told_for_what_it_is() -> None:
    with serving(answering(http(b"<html>a developer's server</html>"))) as other:
        with pytest.raises(LoginFailedError) as caught:
            find_server(replace(other.site, scheme="https"), Trust(), try_http=True)
        assert caught.value.code == "not_a_cells_server"
        assert other.site.url in caught.value.message


def test_clear_text_to_another_machine_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(UntrustedServerError) as caught:
        find_server(parse_site("http://files.example.com"), Trust(), try_http=False)
    assert caught.value.code == "plain_http"


def test_a_server_that_keeps_the_connection_open_is_not_waited_for() -> None:
    def serve(connection: socket.socket) -> None:
        answer = http(document(server))
        connection.sendall(answer[:-10])
        connection.sendall(answer[-10:])
        connection.recv(1)  # until the client has gone

    with serving(serve) as server:
        assert find_server(server.site, Trust(), try_http=False)[0] == server.site
        assert len(server.requests) == 1


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_a_compressed_document_is_read_too(encoding: str) -> None:
    def serve(connection: socket.socket) -> None:
        body = document(server)
        packed = gzip.compress(body) if encoding == "gzip" else body
        connection.sendall(http(packed, f"Content-Encoding: {encoding}"))

    with serving(serve) as server:
        assert find_server(server.site, Trust(), try_http=False)[0] == server.site


@pytest.mark.parametrize(
    ("fault", "exit_code"),
    [
        (Fault(status=503, times=None), 7),
        (Fault(drop="before", times=None), 7),
        (Fault(padding=2 << 20, times=None), 9),
        (Fault(status=302, headers={"Location": "https://cells.example.com/"}, times=None), 5),
    ],
    ids=["failing", "cut off", "oversized", "a redirect"],
)
def test_what_the_quick_way_cannot_explain_the_other_one_does(
    server: CellsServer, fault: Fault, exit_code: int
) -> None:
    server.fault("discovery", fault)
    with pytest.raises(CellsLoopbackError) as caught:
        find_server(parse_site(server.site), Trust(), try_http=False)
    assert caught.value.exit_code == exit_code


def test_a_failure_of_a_moment_is_not_noticed(server: CellsServer) -> None:
    server.fault("discovery", Fault(drop="before"))
    assert find_server(parse_site(server.site), Trust(), try_http=False)
    assert server.count("discovery") == 2


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    import threading

    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
)
def test_a_document_that_drips_is_given_up_in_time(
    head: bytes, stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_DIRECT_TIMEOUT", 0.4)
    monkeypatch.setattr(transport, "REQUEST_TIMEOUT", 0.4)
    began = time.monotonic()
    with serving(dripping(head, stop)) as server, pytest.raises(ServerUnavailableError) as caught:
        find_server(server.site, Trust(), try_http=False)
    assert caught.value.code == "timed_out"
    assert time.monotonic() - began < 10


def test_a_proxy_is_asked_where_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering(http(b"", status="403 Forbidden"))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.site.url)
        with pytest.raises(ServerUnavailableError) as caught:
            find_server(parse_site("files.example.com"), Trust(), try_http=False)
        assert caught.value.code == "proxy"
        assert len(proxy.requests) == 1


def test_no_proxy_is_asked_about_this_machine(server: CellsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert find_server(parse_site(server.site), Trust(), try_http=False)

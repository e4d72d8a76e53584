"""Requests to one site: what is sent, how long and to how much is listened, what is told of failures."""

from __future__ import annotations

import gzip
import json
import logging
import socket
import ssl
import sys
import threading
import time
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from examples import NOW
from frames import leaks
from raw_server import answering, dripping, http, serving

from cells_loopback.errors import CellsLoopbackError, ServerUnavailableError, UntrustedServerError
from cells_loopback.http import transport
from cells_loopback.http.answers import MAX_ANSWER
from cells_loopback.http.transport import SiteClient, draw_pause, make_http_client, retry_unavailable
from cells_loopback.http.trust import Trust, check_scheme, make_ssl_context
from cells_loopback.protocol.site import Site, parse_site
from cells_loopback.secret import Secret
from cells_loopback.testing import CellsServer, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from raw_server import RawServer, Serve

    from cells_loopback.http.answers import Answer

TOKEN = Secret("ory_at_of-the-transport")
FORM: dict[str, str | Secret] = {
    "grant_type": "refresh_token",
    "refresh_token": Secret("ory_rt_of-the-transport"),
    "client_secret": Secret("open-sesame-of-the-transport"),
}
BASIC = Secret("Basic b3Blbi1zZXNhbWU=")
SECRETS = [
    "ory_at_of-the-transport",
    "ory_rt_of-the-transport",
    "open-sesame-of-the-transport",
    "b3Blbi1zZXNhbWU",
]


def get(server: RawServer, **options: Any) -> Answer:
    with SiteClient(server.site, Trust()) as client:
        return client.get(f"{server.site.url}/x", **options)


def failure(serve: Serve) -> CellsLoopbackError:
    """The error of a request with secrets in it; none of them may be seen in its traceback."""
    with serving(serve) as server, SiteClient(server.site, Trust()) as client:
        with pytest.raises(CellsLoopbackError) as getting:
            client.get(f"{server.site.url}/x", bearer=TOKEN)
        with pytest.raises(CellsLoopbackError) as posting:
            client.post_form(f"{server.site.url}/x", FORM, BASIC)
    assert leaks(getting.value, SECRETS) == leaks(posting.value, SECRETS) == []
    assert getting.value.code == posting.value.code
    return posting.value


# What is sent


def test_a_request_carries_its_token_and_nothing_of_other_programs() -> None:
    with serving(answering(http(b"{}"))) as server:
        get(server, bearer=TOKEN)
        head = server.requests[0].decode()
    lines = dict(line.split(": ", 1) for line in head.strip().split("\r\n")[1:])
    assert head.startswith("GET /x HTTP/1.1\r\n")
    assert lines["Authorization"] == "Bearer ory_at_of-the-transport"
    assert lines["Accept"] == "application/json"
    assert lines["Accept-Encoding"] == "gzip, deflate"
    assert lines["User-Agent"] == "cells-loopback"
    assert set(lines) == {"Host", "Accept", "Accept-Encoding", "Connection", "User-Agent", "Authorization"}


def test_a_form_is_sent_as_oauth_wants_it() -> None:
    with serving(answering(http(b"{}"))) as server, SiteClient(server.site, Trust()) as client:
        client.post_form(f"{server.site.url}/x", {**FORM, "scope": "a b&c=ü"}, BASIC)
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert b"Content-Type: application/x-www-form-urlencoded" in head
    assert b"Authorization: Basic b3Blbi1zZXNhbWU=" in head
    assert b"scope=a+b%26c%3D%C3%BC" in body
    assert b"refresh_token=ory_rt_of-the-transport" in body


def test_no_cookie_is_kept_from_one_request_to_the_next_site() -> None:
    with serving(answering(http(b"{}", "Set-Cookie: a=b; Domain=localhost"))) as server:
        get(server)
        get(server)
        assert b"Cookie" not in server.requests[1]


# What comes back


def test_an_answer_is_status_headers_body_and_time() -> None:
    before = time.time()
    with serving(answering(http(b'{"a": 1}', "X-Thing: y", "Date: Fri, 15 Jan 2027 08:00:00 GMT"))) as server:
        answer = get(server)
    assert (answer.status, answer.headers["x-thing"], answer.json_object()) == (200, "y", {"a": 1})
    assert before <= answer.time.wall <= time.time()
    assert answer.time.server_date == NOW


def test_an_answer_prints_neither_headers_nor_body() -> None:
    with serving(answering(http(b'{"access_token": "ory_at_x"}', "Set-Cookie: session=ory_at_x"))) as server:
        assert "ory_at_x" not in repr(get(server))


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_no_redirect_is_followed_and_no_secret_goes_along(status: str) -> None:
    with serving(answering(http(b"{}"))) as elsewhere:
        redirect = http(b"", f"Location: {elsewhere.site.url}/stolen", status=status)
        with serving(answering(redirect)) as server, SiteClient(server.site, Trust()) as client:
            assert client.get(f"{server.site.url}/x", bearer=TOKEN).status == int(status[:3])
            assert client.post_form(f"{server.site.url}/x", FORM, BASIC).status == int(status[:3])
        assert elsewhere.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP"])
def test_a_compressed_answer_is_read(encoding: str) -> None:
    pack: Callable[[bytes], bytes] = zlib.compress if encoding == "deflate" else gzip.compress
    with serving(answering(http(pack(b'{"a": 1}'), f"Content-Encoding: {encoding}"))) as server:
        assert get(server).json_object() == {"a": 1}


# How much is listened to


def test_the_largest_answer_is_read_whole() -> None:
    body = b'{"a": "' + b"x" * (MAX_ANSWER - 9) + b'"}'
    with serving(answering(http(body))) as server:
        assert len(get(server).body) == MAX_ANSWER
        assert get(server).json_object() is not None


CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"
OVERSIZED = {
    "with its length": [http(b"x" * (MAX_ANSWER + 1))],
    "without a length": [b"HTTP/1.1 200 OK\r\n\r\n", b"x" * (MAX_ANSWER + 1)],
    "in chunks": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[CHUNK] * 20],
    "a gzip bomb": [http(gzip.compress(b" " * 20_000_000, 9), "Content-Encoding: gzip")],
    "a deflate bomb": [http(zlib.compress(b" " * 20_000_000, 9), "Content-Encoding: deflate")],
}


@pytest.mark.parametrize("pieces", OVERSIZED.values(), ids=OVERSIZED)
def test_a_larger_one_is_not_trusted_and_not_kept(pieces: list[bytes]) -> None:
    began = time.monotonic()
    error = failure(answering(*pieces))
    assert (error.exit_code, error.code) == (9, "answer_too_large")
    assert time.monotonic() - began < 10


def test_an_answer_that_never_ends_is_cut_off() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b"x" * 65536)

    assert failure(serve).code == "answer_too_large"


def test_headers_without_end_are_cut_off() -> None:
    def serve(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X: " + b"y" * 60_000 + b"\r\n")

    assert failure(serve).exit_code == 7


BROKEN = {
    "nothing": [b""],
    "half a status line": [b"HTTP/1."],
    "half the headers": [b"HTTP/1.1 200 OK\r\nContent-Le"],
    "half the body": [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"],
    "half a chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx"],
    "a wrong chunk": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx"],
    "a wrong length": [b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"],
    "two lengths": [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"],
    "another protocol": [b"SSH-2.0-OpenSSH_9.2\r\n"],
    "TLS": [b"\x15\x03\x01\x00\x02\x02\x46"],
    "HTTP/2": [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"],
    "gzip that is none": [http(b"nonsense", "Content-Encoding: gzip")],
    "gzip that breaks": [
        http(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff", "Content-Encoding: gzip")
    ],
    "half of gzip": [http(gzip.compress(b'{"a": 1}')[:-12], "Content-Encoding: gzip")],
    "gzip of nothing": [http(b"", "Content-Encoding: gzip")],
    "an encoding that nobody offered": [http(b"x", "Content-Encoding: br")],
}


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=BROKEN)
def test_a_broken_answer_may_have_been_a_processed_request(pieces: list[bytes]) -> None:
    error = failure(answering(*pieces))
    assert isinstance(error, ServerUnavailableError)
    assert (error.code, error.answer_lost) == ("connection_lost", True)


# How long is listened to


@pytest.fixture
def half_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "REQUEST_TIMEOUT", 0.5)


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


SLOW_HEADS = {
    "a status line": b"HTTP/1.1 200",
    "headers": b"HTTP/1.1 200 OK\r\nX: ",
    "a body of a known length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n",
    "a body without a length": b"HTTP/1.1 200 OK\r\n\r\n",
}


@pytest.mark.usefixtures("half_a_second")
@pytest.mark.parametrize("head", SLOW_HEADS.values(), ids=SLOW_HEADS)
def test_an_answer_that_drips_is_cut_in_time_however_steadily(head: bytes, stop: threading.Event) -> None:
    began = time.monotonic()
    error = failure(dripping(head, stop))  # two requests
    assert 1 <= time.monotonic() - began < 10
    assert isinstance(error, ServerUnavailableError)
    assert (error.code, error.answer_lost) == ("timed_out", True)


LATE_ANSWERS = {
    "a known length": (http(b"{}"), True),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", True),
    "chunks without the last": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", False),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\n{}", False),
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a cut drops what has been received")
@pytest.mark.parametrize(("pieces", "is_whole"), LATE_ANSWERS.values(), ids=LATE_ANSWERS)
def test_an_answer_that_waited_for_a_stopped_process_counts_if_it_is_whole(
    monkeypatch: pytest.MonkeyPatch, pieces: bytes, is_whole: bool
) -> None:
    monkeypatch.setattr(transport, "REQUEST_TIMEOUT", 0.5)
    has_cut = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.sendall(pieces)
        wait_for_the_client_to_go(connection)
        has_cut.set()

    def stop_before_reading(name: str, _info: object) -> None:
        if name == "http11.receive_response_headers.started":
            assert has_cut.wait(10)

    with serving(serve) as server, SiteClient(server.site, Trust(), stop_before_reading) as client:
        if is_whole:
            assert client.get(f"{server.site.url}/x").body == b"{}"
        else:
            with pytest.raises(ServerUnavailableError, match="in time"):
                client.get(f"{server.site.url}/x")


def wait_for_the_client_to_go(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.usefixtures("half_a_second")
def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    error = failure(wait_for_the_client_to_go)
    assert isinstance(error, ServerUnavailableError)
    assert (error.code, error.answer_lost) == ("timed_out", True)


@pytest.mark.usefixtures("half_a_second")
def test_a_slow_server_over_tls_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with CellsServer(tls=True) as server:
        server.fault("/x", Fault(status=200, body=b" " * 1000, drip=0.02, times=None))
        with SiteClient(parse_site(server.site), Trust(ca_bundle=server.ca_file)) as client:
            client.get(f"{server.site}/oidc/.well-known/jwks.json")
            began = time.monotonic()
            with pytest.raises(ServerUnavailableError) as caught:
                client.get(f"{server.site}/x", bearer=TOKEN)
    assert caught.value.code == "timed_out"
    assert time.monotonic() - began < 10


def test_a_request_in_time_is_not_cut_afterwards(
    monkeypatch: pytest.MonkeyPatch, server: CellsServer
) -> None:
    monkeypatch.setattr(transport, "REQUEST_TIMEOUT", 1)
    with SiteClient(parse_site(server.site), Trust()) as client:
        url = f"{server.site}/oidc/.well-known/jwks.json"
        assert client.get(url).status == 200
        ended = threading.Event()
        threading.Timer(1.1, ended.set).start()
        ended.wait()
        assert client.get(url).status == 200


# Who is asked


def test_a_proxy_never_stands_between_us_and_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for host in ("localhost", "127.0.0.1"):
        with serving(answering(http(b"{}"))) as server:
            site = Site("http", host, server.port)
            with SiteClient(site, Trust()) as client:
                assert client.get(f"{site.url}/x").status == 200


def test_a_proxy_is_used_for_every_other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering(http(b'{"by": "proxy"}'))) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        site = Site("http", "files.example.com", 80)
        with SiteClient(site, Trust(insecure=True)) as client:
            assert client.get(f"{site.url}/x").json_object() == {"by": "proxy"}
        assert proxy.requests[0].startswith(b"GET http://files.example.com/x HTTP/1.1\r\n")


def test_a_machine_that_no_proxy_is_for_is_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "files.example.com")
    site = Site("http", "files.example.com", 9)
    with SiteClient(site, Trust(insecure=True)) as client, pytest.raises(ServerUnavailableError) as caught:
        client.get(f"{site.url}/x")
    assert caught.value.code != "proxy"


def test_a_proxy_that_cannot_be_reached_is_named_and_its_password_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://user:open-sesame@127.0.0.1:9")
    site = parse_site("files.example.com")
    with SiteClient(site, Trust()) as client, pytest.raises(ServerUnavailableError) as caught:
        client.get(f"{site.url}/x", bearer=TOKEN)
    assert caught.value.code == "proxy"
    assert "open-sesame" not in caught.value.message + caught.value.hint
    assert leaks(caught.value, SECRETS) == []


def test_a_proxy_that_refuses_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(answering(http(b"", status="403 Forbidden"))) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        site = parse_site("files.example.com")
        with SiteClient(site, Trust()) as client, pytest.raises(ServerUnavailableError) as caught:
            client.get(f"{site.url}/x", bearer=TOKEN)
        assert proxy.requests[0].startswith(b"CONNECT files.example.com:443")
        assert b"Authorization" not in proxy.requests[0]
    assert caught.value.code == "proxy"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def test_a_port_on_which_nobody_listens_is_told_as_such() -> None:
    site = Site("http", "127.0.0.1", free_port())
    with SiteClient(site, Trust()) as client, pytest.raises(ServerUnavailableError) as caught:
        client.get(f"{site.url}/x", bearer=TOKEN)
    assert (caught.value.exit_code, caught.value.code, caught.value.answer_lost) == (7, "refused", False)
    assert str(site.port) in caught.value.message
    assert leaks(caught.value, SECRETS) == []


def test_a_host_that_does_not_exist_is_told_as_such() -> None:
    site = parse_site("cells.invalid")  # RFC 6761 §6.4: never in the DNS
    with SiteClient(site, Trust()) as client, pytest.raises(ServerUnavailableError) as caught:
        client.get(f"{site.url}/x", bearer=TOKEN)
    assert (caught.value.code, caught.value.answer_lost) == ("host_not_found", False)
    assert "cells.invalid" in caught.value.message


def test_a_server_that_does_not_speak_tls_is_told_as_such() -> None:
    with serving(answering(http(b"{}", status="400 Bad Request"))) as server:
        site = Site("https", "127.0.0.1", server.port)
        with SiteClient(site, Trust()) as client, pytest.raises(ServerUnavailableError) as caught:
            client.get(f"{site.url}/x", bearer=TOKEN)
        assert not [request for request in server.requests if b"ory_at" in request]
    assert (caught.value.code, caught.value.answer_lost) == ("no_tls", False)
    assert f"http://127.0.0.1:{server.port}" in caught.value.hint


# Whom we believe


def trusting(server: CellsServer) -> SiteClient:
    return SiteClient(parse_site(server.site), Trust(ca_bundle=server.ca_file))


@pytest.mark.parametrize(
    ("site", "insecure", "allowed"),
    [
        ("https://files.example.com", False, True),
        ("http://localhost:8080", False, True),
        ("http://127.0.0.1:8080", False, True),
        ("http://[::1]:8080", False, True),
        ("http://files.example.com", False, False),
        ("http://192.168.1.2", False, False),
        ("http://0.0.0.0", False, False),
        ("http://localhost.example.com", False, False),
        ("http://files.example.com", True, True),
    ],
)
def test_clear_text_goes_to_this_machine_only_unless_asked_for(
    site: str, insecure: bool, allowed: bool
) -> None:
    trust = Trust(insecure=insecure)
    if allowed:
        check_scheme(parse_site(site), trust)
        return
    for refuse in (check_scheme, SiteClient, make_http_client):
        with pytest.raises(UntrustedServerError) as caught:
            refuse(parse_site(site), trust)
        assert (caught.value.exit_code, caught.value.code) == (9, "plain_http")


def test_the_servers_authority_may_be_named() -> None:
    with CellsServer(tls=True) as server, trusting(server) as client:
        assert client.get(f"{server.site}/oidc/.well-known/jwks.json").status == 200


def test_the_servers_authority_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with CellsServer(tls=True) as server:
        assert server.ca_file is not None
        monkeypatch.setenv("SSL_CERT_FILE", server.ca_file)
        with SiteClient(parse_site(server.site), Trust()) as client:
            assert client.get(f"{server.site}/oidc/.well-known/jwks.json").status == 200


@pytest.mark.parametrize("kind", ["self-signed", "expired", "other-host"])
def test_a_bad_certificate_is_not_trusted_and_gets_no_secret(kind: Any) -> None:
    with CellsServer(tls=kind) as server:
        with trusting(server) as client, pytest.raises(UntrustedServerError) as caught:
            client.get(f"{server.site}/x", bearer=TOKEN)
        assert server.requests == []
    assert (caught.value.exit_code, caught.value.code) == (9, "certificate")
    assert leaks(caught.value, SECRETS) == []


def test_a_certificate_of_an_unknown_authority_names_the_three_ways_out() -> None:
    with (
        CellsServer(tls=True) as server,
        SiteClient(parse_site(server.site), Trust()) as client,
        pytest.raises(UntrustedServerError) as caught,
    ):
        client.get(f"{server.site}/x")
    assert caught.value.code == "certificate"
    for way in ("system's store", "--ca-bundle", "--insecure"):
        assert way in caught.value.hint


@pytest.mark.parametrize("kind", ["self-signed", "expired", "other-host"])
def test_any_certificate_is_taken_where_the_person_asked_for_it(kind: Any) -> None:
    with CellsServer(tls=kind) as server:
        client = SiteClient(parse_site(server.site), Trust(insecure=True))
        with client:
            assert client.get(f"{server.site}/oidc/.well-known/jwks.json").status == 200


@pytest.mark.parametrize("content", [None, "", "no certificate", "-----BEGIN CERTIFICATE-----\nx\n"])
def test_a_bundle_that_cannot_be_read_is_told_with_its_name(tmp_path: Path, content: str | None) -> None:
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_text(content)
    with pytest.raises(UntrustedServerError) as caught:
        make_ssl_context(Trust(ca_bundle=str(bundle)))
    assert caught.value.code == "ca_bundle"
    assert str(bundle) in caught.value.message


def test_a_bundle_replaces_the_systems_authorities() -> None:
    with CellsServer(tls=True) as server:
        context = make_ssl_context(Trust(ca_bundle=server.ca_file))
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert len(context.get_ca_certs()) == 1
        # From Python 3.13 the default is to refuse what many private authorities sign (no key identifier).
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT


def test_the_servers_own_certificate_is_bundle_enough(tmp_path: Path) -> None:
    bundle = tmp_path / "server.pem"
    with CellsServer(tls=True) as server:
        site = parse_site(server.site)
        bundle.write_text(ssl.get_server_certificate((site.host, site.port)))
        with SiteClient(site, Trust(ca_bundle=str(bundle))) as client:
            assert client.get(f"{server.site}/oidc/.well-known/jwks.json").status == 200


def test_no_old_tls_is_spoken() -> None:
    with CellsServer(tls=True) as server:
        for trust in (Trust(), Trust(ca_bundle=server.ca_file), Trust(insecure=True)):
            assert make_ssl_context(trust).minimum_version >= ssl.TLSVersion.TLSv1_2


# What is told


def test_the_words_of_an_error_are_kept_and_its_frames_are_not() -> None:
    error = failure(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"))
    assert error.__cause__ is None
    frames = []
    walked = error.__traceback__
    while walked is not None:
        frames.append(walked.tb_frame.f_code.co_name)
        walked = walked.tb_next
    assert not [name for name in frames if name in {"_exchange", "stream", "handle_request"}]


def test_debug_logging_of_httpx_shows_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    answer = http(b'{"access_token": "ory_at_2"}')
    with serving(answering(answer)) as server, SiteClient(server.site, Trust()) as client:
        client.get(f"{server.site.url}/x", bearer=TOKEN)
        client.post_form(f"{server.site.url}/x", FORM, BASIC)
    told = caplog.text + repr([record.args for record in caplog.records])
    assert not [secret for secret in [*SECRETS, "ory_at_2"] if secret in told]


def test_a_client_is_closed_with_its_connections(server: CellsServer) -> None:
    with SiteClient(parse_site(server.site), Trust()) as client:
        client.get(f"{server.site}/oidc/.well-known/jwks.json")
    with pytest.raises(ServerUnavailableError):  # a thread that goes on has an error, no traceback
        client.get(f"{server.site}/oidc/.well-known/jwks.json")


def test_a_connection_is_used_again(server: CellsServer) -> None:
    with serving(_two_answers) as counting, SiteClient(counting.site, Trust()) as client:
        assert client.get(f"{counting.site.url}/1").body == b"1"
        assert client.get(f"{counting.site.url}/2").body == b"2"
        assert len(counting.requests) == 1  # connections


def _two_answers(connection: socket.socket) -> None:
    connection.sendall(http(b"1", connection="keep-alive"))
    connection.recv(65536)
    connection.sendall(http(b"2"))


# When to come back


@pytest.mark.parametrize(
    ("attempt", "retry_after", "draw", "pause"),
    [
        (0, None, 0.0, 0.0),
        (0, None, 1.0, 0.5),
        (1, None, 1.0, 1.0),
        (2, None, 0.5, 1.0),
        (3, None, 1.0, 4.0),
        (4, None, 1.0, 5.0),
        (60, None, 1.0, 5.0),
        (0, 7.0, 0.0, 7.0),
        (0, 7.0, 1.0, 7.5),
        (60, 7.0, 1.0, 12.0),
        (0, 0.0, 1.0, 0.5),
    ],
)
def test_a_pause_is_drawn_from_a_growing_span_and_never_shorter_than_asked(
    attempt: int, retry_after: float | None, draw: float, pause: float
) -> None:
    assert draw_pause(attempt, retry_after, lambda: draw) == pause


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def failing(times: int, error: ServerUnavailableError | None = None) -> Callable[[], str]:
    """Fail that many times, then succeed."""
    tries = iter(range(times))

    def act() -> str:
        if next(tries, None) is not None:
            raise error or ServerUnavailableError("down")
        return "done"

    return act


def test_what_works_is_done_once() -> None:
    clock = Clock()
    assert retry_unavailable(failing(0), clock=clock, sleep=clock.sleep) == "done"
    assert clock.slept == []


def test_a_server_that_comes_back_is_waited_for() -> None:
    clock = Clock()
    told: list[float] = []
    assert (
        retry_unavailable(
            failing(3), on_retry=lambda _error, pause: told.append(pause), clock=clock, sleep=clock.sleep
        )
        == "done"
    )
    assert told == clock.slept
    assert len(told) == 3
    assert all(0 <= pause <= span for pause, span in zip(told, (0.5, 1.0, 2.0), strict=True))


def test_a_server_that_stays_away_is_given_up_in_time() -> None:
    clock = Clock()
    with pytest.raises(ServerUnavailableError):
        retry_unavailable(failing(10**6), total=20, clock=clock, sleep=clock.sleep)
    assert clock.now - 1000 <= 20
    assert len(clock.slept) > 3


def test_a_server_that_asks_for_more_time_than_there_is_is_given_up_at_once() -> None:
    clock = Clock()
    with pytest.raises(ServerUnavailableError) as caught:
        retry_unavailable(
            failing(10, ServerUnavailableError("down", retry_after=21)),
            total=20,
            clock=clock,
            sleep=clock.sleep,
        )
    assert caught.value.retry_after == 21
    assert clock.slept == []


def test_a_server_that_asks_for_patience_gets_it() -> None:
    clock = Clock()
    error = ServerUnavailableError("down", retry_after=6)
    assert retry_unavailable(failing(2, error), total=20, clock=clock, sleep=clock.sleep) == "done"
    assert all(pause >= 6 for pause in clock.slept)


@pytest.mark.parametrize("error", [UntrustedServerError("x"), ValueError("x"), KeyboardInterrupt()])
def test_nothing_else_is_tried_again(error: BaseException) -> None:
    tries = []

    def act() -> None:
        tries.append(1)
        raise error

    with pytest.raises(type(error)):
        retry_unavailable(act, clock=Clock(), sleep=lambda _seconds: None)
    assert len(tries) == 1


def test_the_detector_of_leaks_finds_one() -> None:
    with pytest.raises(ValueError, match="Unterminated") as caught:
        json.loads('{"a-secret')
    assert len(leaks(caught.value, ["a-secret"])) > 2
    assert leaks(caught.value, ["another"]) == []

"""The embedded server's life: start and stop, sockets, certificates, its browser, and the command."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
from typing import TYPE_CHECKING

import pytest
from bare_client import BareClient
from releases import EVERY_RELEASE

import cells_loopback.testing
from cells_loopback.testing import Browser, CellsServer, Fault, User

if TYPE_CHECKING:
    from pathlib import Path

    from releases import Release

DISCOVERY = "/oidc/.well-known/openid-configuration"


def test_it_starts_in_well_under_half_a_second(record_property: pytest.RecordProperty) -> None:
    started = time.perf_counter()
    with CellsServer():
        # Recorded, not asserted: a busy machine is no defect.
        record_property("start_seconds", round(time.perf_counter() - started, 3))


def test_it_leaves_no_thread_no_socket_and_no_file() -> None:
    with CellsServer(tls=True) as server:
        assert BareClient(server).get(DISCOVERY).status == 200
        ca_file, port = server.ca_file, int(server.site.rpartition(":")[2])
    assert ca_file
    assert not os.path.exists(os.path.dirname(ca_file))
    assert "cells-server" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    gc.collect()  # an unclosed socket would be a warning, and a warning is an error


def test_it_may_be_stopped_twice_and_started_again() -> None:
    server = CellsServer().start()
    server.stop()
    server.stop()
    with server:
        assert BareClient(server).get(DISCOVERY).status == 200


def test_it_listens_on_both_loopback_addresses_and_nowhere_else(server: CellsServer) -> None:
    port = int(server.site.rpartition(":")[2])
    for address in ("127.0.0.1", "::1"):
        with socket.create_connection((address, port), timeout=5):
            pass
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_it_may_listen_on_one_address(host: str) -> None:
    with CellsServer(host=host) as server:
        assert server.site.startswith(f"http://{host}:")
        assert BareClient(server).get(DISCOVERY).json["issuer"] == f"{server.site}/oidc/"


def test_a_port_that_is_taken_is_an_error(server: CellsServer) -> None:
    with pytest.raises(OSError, match="in use"):
        CellsServer(port=int(server.site.rpartition(":")[2])).start()


def test_it_works_in_an_async_with() -> None:
    async def use() -> int:
        async with CellsServer() as server:
            return (await asyncio.to_thread(BareClient(server).get, DISCOVERY)).status

    assert asyncio.run(use()) == 200


def test_two_servers_do_not_share_logins() -> None:
    browser = Browser()
    with CellsServer() as first, CellsServer() as second:
        for server in (first, second, first):
            server.sign_in(BareClient(server).authorization_url(), browser=browser)
        assert (first.count("login"), second.count("login")) == (1, 1)


def test_it_tells_how_long_each_answer_took_it(server: CellsServer) -> None:
    server.fault(DISCOVERY, Fault(delay=0.05))
    before = time.time()
    BareClient(server).get(DISCOVERY)
    request = server.requests[-1]
    assert before <= request.time <= time.time()
    assert request.seconds is not None
    assert 0.05 <= request.seconds < 10


def test_it_takes_two_hundred_connections_at_once(server: CellsServer) -> None:
    port = int(server.site.rpartition(":")[2])
    waiting = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(200)]
    try:
        assert BareClient(server).get(DISCOVERY).status == 200
    finally:
        for connection in waiting:
            connection.close()


@EVERY_RELEASE
def test_a_person_can_log_in_to_every_release(release: Release) -> None:
    with CellsServer(behaviour=release.behaviour) as server:
        client = BareClient(server)
        code = client.authorize()["code"]
        verifier = {} if release.binds_pkce else {"code_verifier": ""}
        if release.behaviour.pkce == "foreign":
            assert client.exchange(code).status == 400  # and with that its challenge is forgotten
        tokens = client.exchange(code, **verifier).json
        assert client.get("/a/config/ctl", tokens["access_token"]).status == 200
        assert client.refresh(tokens["refresh_token"]).status == 200


# TLS


def test_its_certificate_is_good_for_whoever_trusts_its_authority() -> None:
    with CellsServer(tls=True) as server:
        assert server.site.startswith("https://localhost:")
        port = int(server.site.rpartition(":")[2])
        context = ssl.create_default_context(cafile=server.ca_file)
        if hasattr(ssl, "VERIFY_X509_STRICT"):
            context.verify_flags |= ssl.VERIFY_X509_STRICT
        for name in ("localhost", "127.0.0.1"):
            with (
                socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname=name) as secure,
            ):
                assert secure.version() in {"TLSv1.2", "TLSv1.3"}
        assert BareClient(server).log_in()["access_token"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("self-signed", "self-signed"), ("expired", "expired"), ("other-host", "mismatch")],
)
def test_a_bad_certificate_is_refused_for_its_one_fault(kind: str, reason: str) -> None:
    with CellsServer(tls=kind) as server:
        with pytest.raises(urllib.error.URLError) as caught:
            BareClient(server).get(DISCOVERY)
        assert reason in str(caught.value).replace("self signed", "self-signed")


def test_without_its_authority_the_certificate_is_not_trusted() -> None:
    with CellsServer(tls=True) as server:
        server.ca_file = None
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            BareClient(server).get(DISCOVERY)


# The browser


def test_the_browser_follows_to_the_very_end(server: CellsServer) -> None:
    token = server.add_personal_access_token()
    server.fault("/first", Fault(status=303, headers={"Location": "/second?x=1"}))
    server.fault("/second", Fault(status=307, headers={"Location": "/oauth2/oob?code=abc#fragment"}))
    page = Browser().open(f"{server.site}/first")
    assert page.url == f"{server.site}/oauth2/oob?code=abc#fragment"
    assert page.history == (f"{server.site}/first", f"{server.site}/second?x=1")
    assert "abc" in page.text
    assert token not in repr(page)


def test_the_browser_gives_up_in_a_loop(server: CellsServer) -> None:
    server.fault("/loop", Fault(status=302, headers={"Location": "/loop"}, times=None))
    with pytest.raises(RuntimeError, match="redirects"):
        Browser().open(f"{server.site}/loop")


def test_the_browser_uses_no_proxy(server: CellsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert Browser().open(server.site).status == 200


def test_a_browser_forgets(server: CellsServer) -> None:
    browser, url = Browser(), BareClient(server).authorization_url()
    server.sign_in(url, browser=browser)
    browser.forget()
    server.sign_in(url, browser=browser)
    assert server.count("login") == 2


# The clock, and the S3 gateway


def test_its_time_starts_from_the_clock_it_is_given() -> None:
    with CellsServer(clock=lambda: 1_000_000_000.0) as server:
        server.advance(5)
        assert server.now() == 1_000_000_005
        assert BareClient(server).get("/").headers["Date"] == "Sun, 09 Sep 2001 01:46:45 GMT"


def test_the_s3_gateway_takes_live_access_tokens(server: CellsServer, tmp_path: Path) -> None:
    boto3 = pytest.importorskip("boto3")
    from botocore.exceptions import ClientError

    s3 = boto3.client(
        "s3",
        endpoint_url=server.site,
        region_name="us-east-1",
        aws_access_key_id=BareClient(server).log_in()["access_token"],
        aws_secret_access_key="gatewaysecret",
    )
    s3.put_object(Bucket="io", Key="a/b.txt", Body=b"content")
    assert s3.get_object(Bucket="io", Key="a/b.txt")["Body"].read() == b"content"
    server.expire_access_tokens()
    with pytest.raises(ClientError):
        s3.get_object(Bucket="io", Key="a/b.txt")
    assert server.count("s3") == 3
    s3.close()


# Users


def test_other_users_can_be_had() -> None:
    with CellsServer(users=[User("carol", "a-password", email="c@example.org")]) as server:
        server.add_user(User("dave", "another-one"))
        client = BareClient(server)
        tokens = client.log_in()
        claims = client.get("/oidc/oauth2/userinfo", tokens["access_token"]).json
        assert (claims["name"], claims["email"]) == ("carol", "c@example.org")
        assert client.get("/a/config/ctl", tokens["access_token"]).status == 403
        server.end_web_sessions()
        assert "code=" in server.sign_in(client.authorization_url(), "dave").url
        assert "a-password" not in repr(server.user)


# The command


def test_the_command_prints_one_line_and_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    command = [
        sys.executable, "-m", "cells_loopback.testing", "--tls", "--pkce", "unbound",
        "--set", "nonce=dropped", "--set", 'authorization_error={"error": "server_error"}',
        "--user", "eve:a-password:admin", "--client", "extra:secret=http://127.0.0.1/cb",
        "--access-token-lifetime", "3", "--s3-root", str(tmp_path),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            ready = json.loads(process.stdout.readline())
            assert (ready["user"], ready["password"]) == ("eve", "a-password")
            page = Browser(ready["ca_file"]).open(ready["site"] + DISCOVERY)
            assert json.loads(page.text)["issuer"] == ready["site"] + "/oidc/"
        finally:
            process.send_signal(signal.SIGTERM)
            rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert not os.path.exists(ready["ca_file"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--set", "colour=red"], "'colour' is no field of Behaviour"),
        (["--set", "pkce=unbond"], "pkce is 'unbond'"),
        (["--user", "eve"], "NAME:PASSWORD"),
        (["--client", "extra"], "ID=URI"),
    ],
)
def test_the_command_refuses_what_it_does_not_know(
    option: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from cells_loopback.testing.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main(option)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_command_says_when_the_port_is_taken(
    server: CellsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    from cells_loopback.testing.__main__ import main

    assert main(["--port", server.site.rpartition(":")[2]]) == 1
    assert "cannot listen on port" in capsys.readouterr().err


def test_it_imports_nothing_of_ours() -> None:
    script = (
        "import sys, cells_loopback.testing;"
        "print([name for name in sys.modules if name.startswith('cells_loopback.')"
        " and not name.startswith('cells_loopback.testing')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_its_public_names_are_those_it_lists() -> None:
    module = cells_loopback.testing
    public = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "").startswith(module.__name__ + ".")
    }
    assert public <= set(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)
    assert module.__all__ == sorted(module.__all__, key=lambda name: (not name.isupper(), name))

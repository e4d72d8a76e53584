"""The first redirect URI whose address is free, in the registered order, and what is told of the others."""

from __future__ import annotations

import socket
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
from own_network import PORTS, network_with_free_ports

from cells_loopback.errors import LoginFailedError
from cells_loopback.loopback import redirect
from cells_loopback.loopback.listener import LOOPBACK, PortUnavailable, is_listening
from cells_loopback.loopback.redirect import hold_redirect_uri
from cells_loopback.protocol.client import CELLS_CLIENT, CELLS_SYNC, ClientRegistration, parse_redirect_uri
from cells_loopback.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("port 3000")

CALLBACK = "http://localhost:{}/servers/callback"


@pytest.fixture(autouse=True)
def network() -> Iterator[None]:
    with network_with_free_ports():
        yield


@contextmanager
def busy(*ports: int) -> Iterator[None]:
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


def client(*uris: str) -> ClientRegistration:
    return ClientRegistration("own", tuple(parse_redirect_uri(uri) for uri in uris))


@pytest.mark.parametrize(
    ("uris", "taken", "used"),
    [
        (["http://localhost:8123/cb"], [], "http://localhost:8123/cb"),
        (["http://localhost:8123/cb", "http://localhost:8124/cb"], [8123], "http://localhost:8124/cb"),
        (["http://localhost:[8123-8126]/cb"], [8123, 8125], "http://localhost:8124/cb"),
        (["http://localhost:8123/a", "http://127.0.0.1:8123/b"], [], "http://localhost:8123/a"),
        (["http://[::1]:8123/cb"], [], "http://[::1]:8123/cb"),
    ],
)
def test_the_first_free_one_is_held(uris: list[str], taken: list[int], used: str) -> None:
    with busy(*taken):
        held = hold_redirect_uri(client(*uris))
    assert held.redirect_uri == used
    assert all(is_listening(sock.getsockname()[0], held.port) for sock in held.sockets)
    port = held.port
    held.close()
    assert not any(is_listening(address, port) for address in LOOPBACK)


def test_a_port_that_was_busy_is_not_tried_again_under_another_uri() -> None:
    own = client("http://localhost:8123/a", "http://127.0.0.1:8123/b", "http://localhost:8124/c")
    with busy(8123):
        held = hold_redirect_uri(own)
    held.close()
    assert held.redirect_uri == "http://localhost:8124/c"


def test_any_port_is_written_out() -> None:
    held = hold_redirect_uri(client("http://127.0.0.1:0/cb"))
    port = held.port
    held.close()
    assert port > 1023
    assert held.redirect_uri == f"http://127.0.0.1:{port}/cb"
    assert held.origin == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("preferred", "used"),
    [
        pytest.param(CALLBACK.format(3640), 3640, id="free"),
        pytest.param(CALLBACK.format(3650), 3000, id="busy"),
        pytest.param("http://localhost:9999/elsewhere", 3000, id="no-longer-registered"),
        pytest.param("", 3000, id="none"),
        pytest.param(None, 3000, id="never"),
    ],
)
def test_the_one_of_the_last_login_is_tried_first(preferred: str | None, used: int) -> None:
    with busy(3650):
        held = hold_redirect_uri(CELLS_SYNC, preferred=preferred)
    held.close()
    assert held.redirect_uri == CALLBACK.format(used)


def test_a_free_port_needs_no_words() -> None:
    held = hold_redirect_uri(CELLS_CLIENT)
    held.close()
    assert (held.client, held.redirect_uri, held.notice) == (CELLS_CLIENT, CALLBACK.format(3000), "")


def test_the_default_client_goes_on_as_the_other_that_every_server_knows() -> None:
    with busy(3000):
        held = hold_redirect_uri(CELLS_CLIENT)
    held.close()
    assert (held.client, held.redirect_uri) == (CELLS_SYNC, CALLBACK.format(3636))
    assert held.notice.startswith("port 3000 is in use")
    assert held.notice.endswith("; going on with port 3636 and the client cells-sync")


def test_the_scope_goes_along() -> None:
    narrow = ClientRegistration(CELLS_CLIENT.client_id, CELLS_CLIENT.redirect_uris, scope="openid offline")
    with busy(3000):
        held = hold_redirect_uri(narrow)
    held.close()
    assert (held.client.client_id, held.client.scope) == ("cells-sync", "openid offline")


@pytest.mark.parametrize(
    "own",
    [
        ClientRegistration("own", CELLS_CLIENT.redirect_uris),
        ClientRegistration("own", CELLS_CLIENT.redirect_uris, Secret("open-sesame")),
        ClientRegistration("cells-client", (parse_redirect_uri("http://localhost:3000/mine"),)),
    ],
    ids=["own-client", "confidential-client", "own-redirect-uri"],
)
def test_no_other_client_is_exchanged_for_another(own: ClientRegistration) -> None:
    with busy(3000), pytest.raises(LoginFailedError) as caught:
        hold_redirect_uri(own)
    assert caught.value.code == "no_free_port"
    assert "tried port" not in caught.value.message, "there was only one"


def test_when_all_are_taken_the_first_is_named_with_the_way_without_a_port() -> None:
    with busy(*PORTS), pytest.raises(LoginFailedError) as caught:
        hold_redirect_uri(CELLS_CLIENT)
    assert (caught.value.exit_code, caught.value.code) == (5, "no_free_port")
    assert "port 3000 is in use" in caught.value.message
    assert "(tried port 3000 and 31 more)" in caught.value.message
    assert caught.value.hint == "free port 3000, or log in without a port: cells-loopback login --paste"


def test_a_port_that_nobody_can_free_is_not_to_be_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_host: str, port: int) -> list[socket.socket]:
        raise PortUnavailable(port, "privileged")

    monkeypatch.setattr(redirect, "bind_loopback", refuse)
    with pytest.raises(LoginFailedError, match="port 80 is only for administrators") as caught:
        hold_redirect_uri(client("http://localhost/cb"))
    assert caught.value.hint.startswith("name another: --redirect-uri URI, or log in without a port")


def test_a_client_without_a_loopback_address_is_told_to_name_one() -> None:
    with pytest.raises(LoginFailedError, match="no loopback redirect URI"):
        hold_redirect_uri(client())

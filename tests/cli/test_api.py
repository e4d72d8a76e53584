"""The ``api`` command: what is sent, what is printed, and what the exit code says."""

from __future__ import annotations

import io
import json
import pty
import sys
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hosts import current_token
from sessions import age_session, store_session

from cells_loopback.cli import main
from cells_loopback.cli.api import api_url, lay_out, parse_header, parse_method, write_answer
from cells_loopback.cli.console import Console
from cells_loopback.errors import UsageError
from cells_loopback.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cells_loopback.testing import CellsServer

SITE = "https://files.example.com"
ECHO = "/a/test/echo"


@pytest.fixture
def config_dir(tmp_path: Path, server: CellsServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    store_session(server, tmp_path / "config")
    monkeypatch.setenv("CELLS_LOOPBACK_CONFIG_DIR", str(tmp_path / "config"))
    return tmp_path / "config"


@pytest.fixture
def call(
    config_dir: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., tuple[int, bytes, str]]:
    """Run the command and return its exit code, stdout and stderr."""

    def run(*arguments: str) -> tuple[int, bytes, str]:
        code = main(["api", *arguments])
        out, err = capsysbinary.readouterr()
        return code, out, err.decode()

    return run


@pytest.fixture
def echo(call: Callable[..., tuple[int, bytes, str]]) -> Callable[..., Any]:
    """Run the command and return what the server says that it received."""
    return lambda *arguments: json.loads(call(*arguments)[1])


class TestRequest:
    def test_a_path_is_got_with_or_without_its_slash(self, echo: Callable[..., Any]) -> None:
        assert echo(ECHO + "?q=a%20b")["query"] == {"q": "a b"}
        assert echo(ECHO.removeprefix("/"))["method"] == "GET"

    def test_data_is_posted_as_json(self, echo: Callable[..., Any], tmp_path: Path) -> None:
        (tmp_path / "body").write_bytes(b"from a file")
        told = echo(ECHO, "-d", "\N{SNOWMAN}")
        assert (told["method"], told["body"]) == ("POST", "\N{SNOWMAN}")
        assert told["headers"]["Content-Type"] == "application/json"
        assert echo(ECHO, "-d", f"@{tmp_path}/body", "-X", "put")["method"] == "PUT"

    def test_several_data_are_one_form_as_with_curl(self, echo: Callable[..., Any], tmp_path: Path) -> None:
        (tmp_path / "body").write_bytes(b"b=2")
        assert echo(ECHO, "-d", "a=1", "-d", f"@{tmp_path}/body")["body"] == "a=1&b=2"

    def test_data_may_come_from_stdin(
        self, echo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"typed")))
        assert echo(ECHO, "-d", "-", "-H", "Content-Type: text/plain")["body"] == "typed"

    def test_stdin_that_is_closed_is_no_body(
        self, call: Callable[..., tuple[int, bytes, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", None)
        assert call(ECHO, "-d", "-")[0] == 2

    def test_a_header_may_be_given_twice(self, server: CellsServer, echo: Callable[..., Any]) -> None:
        echo(ECHO, "-H", "X-Word: one", "-H", "X-Word: two")
        headers: Any = server.requests[-1].headers
        assert headers.getall("X-Word") == ["one", "two"]


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("/a/x", SITE + "/a/x"),
        ("a/x", SITE + "/a/x"),
        ("", SITE + "/"),
        ("/a/x;", SITE + "/a/x;"),
        ("/a/[", SITE + "/a/["),
        ("/a/x?to=http://elsewhere.example/", SITE + "/a/x?to=http://elsewhere.example/"),
        (SITE + "/a/x", SITE + "/a/x"),
        ("HTTPS://FILES.example.com:443/a", "https://FILES.example.com:443/a"),
    ],
)
def test_a_path_or_url_of_the_site_is_called(path: str, url: str) -> None:
    assert api_url(SITE, path).casefold() == url.casefold()


@pytest.mark.parametrize(
    "path",
    [
        "http://files.example.com/a",
        "https://files.example.com:8443/a",
        "https://files.example.com@elsewhere.example/a",
        "//elsewhere.example/a",
        "//[",
        "file:///etc/passwd",
        "https://[/",
        "/a b",
        "/a\r\nX: y",
    ],
)
def test_nothing_else_is_called(path: str) -> None:
    with pytest.raises(UsageError):
        api_url(SITE, path)


@pytest.mark.parametrize(
    "header",
    [
        "none",
        ": x",
        "X Y: 1",
        "X: a\nB: c",
        "X: \xe9",
        "Authorization: Bearer x",
        "host:x",
        "Content-Length: 3",
    ],
)
def test_headers_that_are_none_or_the_programs_own_are_refused(header: str) -> None:
    with pytest.raises(UsageError):
        parse_header(header)


def test_a_method_is_one_word() -> None:
    assert parse_method("patch") == "PATCH"
    with pytest.raises(UsageError):
        parse_method("GET /")


class TestAnswer:
    @pytest.mark.parametrize(
        ("status", "code"), [(200, 0), (204, 0), (302, 0), (400, 5), (404, 5), (429, 5), (500, 7), (503, 7)]
    )
    def test_it_is_printed_whatever_it_is(
        self, server: CellsServer, call: Callable[..., tuple[int, bytes, str]], status: int, code: int
    ) -> None:
        server.fault("/a/answer", Fault(status=status, body=b"" if status == 204 else b"\x00\xff raw"))
        assert call("/a/answer") == (code, b"" if status == 204 else b"\x00\xff raw", "")

    def test_a_401_is_mended_by_a_renewal(
        self, server: CellsServer, call: Callable[..., tuple[int, bytes, str]]
    ) -> None:
        server.expire_access_tokens()
        assert call(ECHO, "-d", "x")[0] == 0
        assert server.count("refresh") == 1

    def test_a_401_that_a_renewal_does_not_mend_is_printed(
        self, server: CellsServer, call: Callable[..., tuple[int, bytes, str]]
    ) -> None:
        server.fault("/a/answer", Fault(status=401, body="no", times=None))
        assert call("/a/answer") == (4, b"no", "")
        assert server.count("refresh") == 1

    def test_a_401_of_a_session_that_has_ended_is_printed_too(
        self, server: CellsServer, call: Callable[..., tuple[int, bytes, str]]
    ) -> None:
        server.revoke_sessions()
        code, out, err = call(ECHO)
        assert (code, json.loads(out)["Code"]) == (4, 401)
        assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "hint"]

    def test_headers_come_first_where_asked_for(
        self, server: CellsServer, call: Callable[..., tuple[int, bytes, str]]
    ) -> None:
        server.fault("/a/answer", Fault(status=201, headers={"X-Word": "one"}, body="body"))
        head, _, body = call("/a/answer", "-i")[1].partition(b"\n\n")
        assert head.splitlines()[0] == b"HTTP/1.1 201 Created"
        assert b"x-word: one" in head.lower()
        assert body == b"body"

    def test_a_redirect_is_shown_and_not_followed(
        self, server: CellsServer, call: Callable[..., tuple[int, bytes, str]]
    ) -> None:
        code, out, _ = call(f"/a/test/redirect?to={server.site}{ECHO}", "-i")
        assert (code, out.splitlines()[0]) == (0, b"HTTP/1.1 302 Found")
        assert ECHO not in {request.path for request in server.requests}

    def test_the_token_is_renewed_before_its_end(
        self, server: CellsServer, config_dir: Path, call: Callable[..., tuple[int, bytes, str]]
    ) -> None:
        age_session(config_dir, 600)
        assert call(ECHO)[0] == 0
        assert server.requests[-1].authorization == f"Bearer {current_token(config_dir)}"


def shown_on_a_terminal(content: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        write_answer(Console(), httpx.Response(200, content=content), include=True)
        terminal.write("END")
        terminal.flush()
        monkeypatch.undo()
        shown = b""
        while not shown.endswith(b"END"):
            shown += screen.read(65536)
    return shown.decode().replace("\r\n", "\n").partition("\n\n")[2].removesuffix("END")


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b'{"b":"\xc3\xa9","a":[]}', '{\n  "b": "\u00e9",\n  "a": []\n}\n'),
        (b"\x1b]0;title\x07 text", "\\x1b]0;title\\x07 text\n"),
        (b"", ""),
    ],
    ids=["json", "escapes", "empty"],
)
def test_a_terminal_gets_json_laid_out_and_no_escapes(
    content: bytes, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown_on_a_terminal(content, monkeypatch) == shown


def test_json_that_is_too_deep_is_left_as_it_is() -> None:
    assert lay_out(httpx.Response(200, content=b"[" * 200_000)) == "[" * 200_000

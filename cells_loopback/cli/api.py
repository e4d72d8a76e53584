"""Call the server's REST API with the session.

Prints the server's answer, whatever it is: JSON laid out on a terminal, as it
came into a pipe. Never sends the token to another site.

exit codes: 0 for 2xx and 3xx; 4 for a 401 that a renewal did not mend; 5 for
any other 4xx; 7 for 5xx.

examples:
  cells-loopback api /a/frontend/state
  cells-loopback api /a/user/alice -i
  cells-loopback api /a/jobs/user -d '{"LoadTasks":"Running"}'
  cells-loopback api /a/acl -X POST -d @query.json -H 'X-Request: 1'
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING

from cells_loopback.cli.console import is_terminal
from cells_loopback.errors import (
    CellsLoopbackError,
    LoginFailedError,
    LoginRequiredError,
    ServerUnavailableError,
    UsageError,
)

if TYPE_CHECKING:
    import argparse

    import httpx

    from cells_loopback.cli.console import Console
    from cells_loopback.session.session import Session

_UNAUTHORIZED = 401
_ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 §5.6.2
# Whom the token goes to, and where the body ends, is not left to -H.
_OWN_HEADERS = {"authorization", "content-length", "host", "transfer-encoding"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("path", metavar="PATH", help="the path below the site, e.g. /a/config/ctl")
    parser.add_argument("-X", "--request", metavar="METHOD", help="GET by default, POST with -d")
    parser.add_argument(
        "-d",
        "--data",
        action="append",
        metavar="DATA",
        help="the body: a text, @FILE, or - for stdin; JSON unless -H says so; several are joined by &",
    )
    parser.add_argument(
        "-H", "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header; repeatable"
    )
    parser.add_argument("-i", "--include", action="store_true", help="print status line and headers too")


def run(args: argparse.Namespace) -> int:
    """Send one request and print its answer."""
    import httpx

    from cells_loopback.http.transport import explain_failure, make_http_client
    from cells_loopback.http.trust import Trust
    from cells_loopback.protocol.site import parse_site
    from cells_loopback.session.session import Session

    session = Session.load(args.profile, config_dir=args.config_dir)
    site = parse_site(session.site)
    url = api_url(site.url, args.path)
    headers = [parse_header(header) for header in args.header]
    body = None if args.data is None else b"&".join(map(read_body, args.data))
    if body is not None and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    method = parse_method(args.request or ("GET" if body is None else "POST"))
    trust = Trust.of(session.stored.settings) if session.profile is not None else Trust()
    try:
        with make_http_client(site, trust) as client:
            request = client.build_request(method, url, headers=headers, content=body)
            response, failure = send(client, request, session)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise explain_failure(site, error) from None
    write_answer(args.console, response, include=args.include)
    if failure is not None:
        raise failure
    return exit_code(response.status_code)


def send(
    client: httpx.Client, request: httpx.Request, session: Session
) -> tuple[httpx.Response, CellsLoopbackError | None]:
    """Send a request, once more with a renewed token after a 401.

    Return the answer, and why the renewal failed where it did: the 401 is an answer to be shown too.
    """
    token = session.token().access_token
    request.headers["Authorization"] = f"Bearer {token.reveal()}"
    response = client.send(request)
    if response.status_code != _UNAUTHORIZED:
        return response, None
    try:
        renewed = session.token(rejected=token).access_token
    except CellsLoopbackError as error:
        return response, error
    request.headers["Authorization"] = f"Bearer {renewed.reveal()}"
    return client.send(request), None


def api_url(site: str, path: str) -> str:
    """Return the URL for a path, or for a whole URL of the same site.

    Raises `UsageError` for another site, and for what no URL may hold.
    """
    from cells_loopback.protocol.site import has_origin

    if any(ord(character) < 33 or ord(character) == 127 for character in path):
        raise UsageError(
            f"{path[:200]!r} holds a space or a control character",
            hint="percent-encode it, a space for example as %20",
        )
    url = path if _ABSOLUTE.match(path) else f"{site}/{path.removeprefix('/')}"
    if path.startswith("//") or not has_origin(url, site):  # RFC 3986 §4.2: that would name another host
        raise UsageError(
            f"{path[:200]!r} is not a path of {site}",
            hint="the token is sent to its own site only: give a path",
        )
    return url


def parse_method(text: str) -> str:
    """Return a method in capitals, as all of HTTP's own are. Raises `UsageError`."""
    if not _TOKEN.fullmatch(text):
        raise UsageError(f"{text[:40]!r} is not a method", hint="give one word, e.g. -X PUT")
    return text.upper()


def parse_header(text: str) -> tuple[str, str]:
    """Read ``NAME: VALUE``. Raises `UsageError` for what is no header, and for those that are ours."""
    name, colon, value = (part.strip() for part in text.partition(":"))
    if not colon or not _TOKEN.fullmatch(name) or any(ord(c) < 32 or ord(c) > 126 for c in value):
        raise UsageError(f"{text[:80]!r} is not a header", hint="write it as 'Name: value'")
    if name.lower() in _OWN_HEADERS:
        raise UsageError(f"the {name} header is the program's own", hint="use curl for another one")
    return name, value


def read_body(data: str) -> bytes:
    """Return the body that ``-d`` names: a text, ``@FILE``, or ``-`` for stdin. Raises `UsageError`."""
    if data in {"-", "@-"}:
        if sys.stdin is None:
            raise UsageError("stdin is closed", hint="give the body as a text or as @FILE")
        return sys.stdin.buffer.read()
    if not data.startswith("@"):
        return os.fsencode(data)
    try:
        with open(data[1:], "rb") as file:
            return file.read()
    except OSError as error:
        raise UsageError(f"cannot read {data[1:]}: {error.strerror}", hint="name a file: -d @FILE") from None


def write_answer(console: Console, response: httpx.Response, *, include: bool) -> None:
    """Write the answer to stdout: bytes as they came, but laid out and made safe on a terminal."""
    from cells_loopback.process.terminal import safe

    terminal = is_terminal(sys.stdout)
    if include:
        lines = [f"{response.http_version} {response.status_code} {response.reason_phrase}"]
        lines += [f"{name}: {value}" for name, value in response.headers.multi_items()]
        console.result("\n".join(safe(line) if terminal else line for line in lines) + "\n")
    if not terminal:
        console.raw_result(response.content)
    elif response.content:
        console.result(safe(lay_out(response), lines=True))


def lay_out(response: httpx.Response) -> str:
    """Return JSON laid out for reading, and any other text as it is."""
    try:
        return json.dumps(response.json(), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return response.text


def exit_code(status: int) -> int:
    """Return the exit code for a status."""
    if status < 400:
        return 0
    if status == _UNAUTHORIZED:
        return LoginRequiredError.exit_code
    return LoginFailedError.exit_code if status < 500 else ServerUnavailableError.exit_code

"""Run the embedded Cells-like server by itself, until SIGTERM or SIGINT.

When it is ready, one JSON object is printed on one line: site, user, password, ca_file.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from .accounts import DEFAULT_USERS, EXAMPLE_CLIENTS, Client, User
from .answers import ErrorAnswer
from .behaviour import Behaviour, Pkce
from .certificates import Certificate
from .server import CellsServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

_FIELDS = {field.name for field in dataclasses.fields(Behaviour)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal comes, and return the exit code."""
    options = _build_parser().parse_args(arguments)
    stopping = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        server = _build_server(options).start()
    except (OSError, OverflowError) as error:
        print(f"error: cannot listen on port {options.port}: {error}", file=sys.stderr)
        return 1
    try:
        print(json.dumps(_describe(server)), flush=True)
        while not stopping.wait(1):  # a bounded wait, so that Windows handles Ctrl-C too
            pass
    finally:
        server.stop()
    return 0


def _build_server(options: argparse.Namespace) -> CellsServer:
    changes = dict(options.set or ())
    for name in ("pkce", "access_token_lifetime", "refresh_token_lifetime"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    return CellsServer(
        behaviour=Behaviour(**changes),
        users=options.user or DEFAULT_USERS,
        clients=(*EXAMPLE_CLIENTS, *(options.client or ())),
        host=options.host,
        port=options.port,
        tls=options.tls or False,
        s3_root=options.s3_root,
    )


def _describe(server: CellsServer) -> dict[str, object]:
    user = server.user
    return {"site": server.site, "user": user.name, "password": user.password, "ca_file": server.ca_file}


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cells_loopback.testing", description=__doc__)
    add = parser.add_argument
    add("--port", type=int, default=0, help="the port to listen on (default: any free one)")
    add("--host", default="localhost", choices=("localhost", "127.0.0.1", "[::1]"), help="where to listen")
    add(
        "--tls",
        nargs="?",
        const="trusted",
        choices=get_args(Certificate),
        help="serve https with a certificate made on the fly; ca_file is what to trust",
    )
    add(
        "--user",
        action="append",
        type=_parse_user,
        metavar="NAME:PASSWORD[:admin]",
        help="a user in place of the default ones; repeatable",
    )
    add(
        "--client",
        action="append",
        type=_parse_client,
        metavar="ID[:SECRET]=URI[,URI...]",
        help="another registered client; repeatable",
    )
    add("--pkce", choices=get_args(Pkce), help="what becomes of the client's challenge (default: bound)")
    seconds: dict[str, Any] = {"type": float, "metavar": "SECONDS"}
    add("--access-token-lifetime", **seconds, help="life of an access token (default: 600)")
    add("--refresh-token-lifetime", **seconds, help="life of a refresh token (default: 60 days)")
    add(
        "--set",
        action="append",
        type=_parse_change,
        metavar="NAME=VALUE",
        help="any field of Behaviour, the value as JSON or as plain text; repeatable",
    )
    add("--s3-root", type=Path, metavar="DIR", help="where the S3 gateway keeps objects (default: nowhere)")
    return parser


def _parse_user(text: str) -> User:
    name, _, rest = text.partition(":")
    password, _, role = rest.partition(":")
    if not name or not password or role not in {"", "admin"}:
        raise argparse.ArgumentTypeError(f"{name!r} needs the form NAME:PASSWORD or NAME:PASSWORD:admin")
    return User(name, password, admin=role == "admin")


def _parse_client(text: str) -> Client:
    who, _, uris = text.partition("=")
    client_id, separator, secret = who.partition(":")
    if not client_id or not uris:
        raise argparse.ArgumentTypeError(f"{client_id!r} needs the form ID=URI or ID:SECRET=URI")
    return Client(client_id, tuple(uris.split(",")), secret if separator else None)


def _parse_change(text: str) -> tuple[str, object]:
    name, separator, value = text.partition("=")
    if name not in _FIELDS or not separator:
        raise argparse.ArgumentTypeError(f"{name!r} is no field of Behaviour: {', '.join(sorted(_FIELDS))}")
    try:
        parsed = json.loads(value)
    except ValueError:
        parsed = value
    if name == "authorization_error" and isinstance(parsed, dict):
        parsed = ErrorAnswer(**parsed)
    try:
        Behaviour(**{name: parsed})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name, parsed


if __name__ == "__main__":
    sys.exit(main())

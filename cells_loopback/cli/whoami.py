"""Print the login name; with --json the claims that the server made.

examples:
  cells-loopback whoami
  cells-loopback whoami --json
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cells_loopback.process.terminal import safe

if TYPE_CHECKING:
    import argparse

    from cells_loopback.session.session import Session
    from cells_loopback.store.profiles import User


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print the claims as a JSON object")


def run(args: argparse.Namespace) -> int:
    """Print who is logged in, as told at the login; the server is asked of a token that was handed in."""
    from cells_loopback.errors import NotLoggedInError
    from cells_loopback.session.session import Session

    session = Session.load(args.profile, config_dir=args.config_dir)
    user = session.user or _ask_server(session)
    if not user.name and not args.json:
        raise NotLoggedInError(
            "the server did not tell whose token this is", hint="see cells-loopback status"
        )
    args.console.result(json.dumps(user.claims, indent=2) if args.json else safe(user.name))
    return 0


def _ask_server(session: Session) -> User:
    from cells_loopback.errors import LoginRequiredError
    from cells_loopback.http.discovery import find_server
    from cells_loopback.http.transport import SiteClient
    from cells_loopback.http.trust import Trust
    from cells_loopback.loopback_login.identity import ask_whose
    from cells_loopback.protocol.site import parse_site
    from cells_loopback.session.session import TOKEN_VARIABLE

    site, metadata = find_server(parse_site(session.site), Trust(), try_http=False)
    with SiteClient(site, Trust()) as client:
        user = ask_whose(client, metadata, session.token().access_token)
    if user is None:
        raise LoginRequiredError(
            f"{site.url} does not accept the token in {TOKEN_VARIABLE}",
            hint=f"put a new one into {TOKEN_VARIABLE}, or unset it and log in",
            code="token_refused",
        )
    return user

"""Print a valid access token, renewing it first when it is about to expire.

The token goes to stdout and nothing else does.

examples:
  cells-loopback token
  curl -K <(cells-loopback token --format curl) https://files.example.com/a/...
  http https://files.example.com/a/... "$(cells-loopback token --format header)"
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cells_loopback.cli.arguments import parse_seconds
from cells_loopback.errors import LoginRequiredError, UsageError

if TYPE_CHECKING:
    import argparse

    from cells_loopback.protocol.tokens import TokenSet
    from cells_loopback.session.session import Session


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--min-valid",
        type=parse_seconds,
        metavar="SECONDS",
        help="the least time the token must still live (default 60); one that never lives so long is renewed",
    )
    parser.add_argument("--refresh", action="store_true", help="renew now, whatever the clock says")
    parser.add_argument(
        "--format",
        choices=("raw", "json", "header", "curl"),
        default="raw",
        help="raw: the token; header: for xh and http; curl: for curl -K; json: with expiry and user",
    )
    parser.add_argument(
        "--login", action="store_true", help="open the browser when nothing else helps (never without this)"
    )


def run(args: argparse.Namespace) -> int:
    """Print the token."""
    session, tokens = _tokens(args)
    args.console.result(format_token(session, tokens, args.format))
    return 0


def _tokens(args: argparse.Namespace) -> tuple[Session, TokenSet]:
    from cells_loopback.session.session import Session

    session = Session.load(args.profile, config_dir=args.config_dir)
    try:
        if args.lock is not None and not args.refresh:
            return session, session.renew_holding(args.lock, args.min_valid)
        return session, session.token(min_valid=args.min_valid, refresh_now=args.refresh)
    except LoginRequiredError as error:
        if not args.login or session.profile is None:  # a token that was handed in is no login's to replace
            raise
        args.console.info(error.message)
    from cells_loopback.cli.login import log_in_again

    session = log_in_again(args)
    return session, session.token(min_valid=args.min_valid)


def format_token(session: Session, tokens: TokenSet, style: str) -> str:
    """Return what ``--format`` asks for, without the last newline."""
    token = tokens.access_token.reveal()
    if style == "header":
        return f"Authorization: Bearer {token}"
    if style == "curl":
        # Between quotes curl reads a backslash as the beginning of an escape (curl(1), --config).
        quoted = token.replace("\\", "\\\\").replace('"', '\\"')
        return f'header = "Authorization: Bearer {quoted}"'
    if style == "raw":
        return token
    from cells_loopback.events import format_optional_time

    user = session.user
    return json.dumps(
        {
            "access_token": token,
            "token_type": tokens.token_type,
            "expires_at": format_optional_time(tokens.expires_at),
            "site": session.site if session.profile is not None else _given_site(session),
            "profile": session.profile,
            "user": user.name if user is not None else None,
        }
    )


def _given_site(session: Session) -> str | None:
    try:
        return session.site
    except UsageError:
        return None

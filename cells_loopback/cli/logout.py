"""Revoke the session on the server, then forget it.

When the server cannot be reached the session is forgotten all the same, and a
warning says that it was not revoked.

examples:
  cells-loopback logout
  cells-loopback logout --all
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from cells_loopback.store.profiles import ProfileStore


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--all", action="store_true", help="all profiles")


def run(args: argparse.Namespace) -> int:
    """Log out of one profile, or of all."""
    from cells_loopback.errors import CellsLoopbackError, UsageError
    from cells_loopback.session.session import TOKEN_VARIABLE
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.preferences import find_default_profile
    from cells_loopback.store.profiles import ProfileStore

    if args.all and args.profile is not None:
        raise UsageError("--all and --profile exclude each other", hint="leave one of them out")
    if not args.all and args.profile is None and os.environ.get(TOKEN_VARIABLE):
        raise UsageError(
            f"the token in use is that of {TOKEN_VARIABLE}, which only its issuer can revoke",
            hint="unset it, or name a stored session: cells-loopback logout --profile NAME",
        )
    store = ProfileStore(find_config_dir(args.config_dir))
    if not args.all:
        name = find_default_profile(store) if args.profile is None else args.profile
        _log_out(store, name, args)
        return 0
    failures: list[CellsLoopbackError] = []
    for name in store.names():
        try:
            _log_out(store, name, args)
        except CellsLoopbackError as error:
            args.console.error(error)
            failures.append(error)
    return failures[0].exit_code if failures else 0


def _log_out(store: ProfileStore, name: str, args: argparse.Namespace) -> None:
    from cells_loopback.session.logout import log_out

    warning = log_out(store, name)
    if warning:
        args.console.warn(warning)
    args.console.info(f"logged out of {name}")

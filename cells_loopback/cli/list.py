"""List the profiles; the default one is marked.

examples:
  cells-loopback list
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add no options."""


def run(args: argparse.Namespace) -> int:
    """Print a line for each profile."""
    from cells_loopback.errors import NotLoggedInError
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.preferences import find_default_profile
    from cells_loopback.store.profiles import ProfileStore

    store = ProfileStore(find_config_dir(args.config_dir))
    names = store.names()
    try:
        default: str | None = find_default_profile(store)
    except NotLoggedInError:
        default = None
    for name in names:
        args.console.result(f"{'*' if name == default else ' '} {name}")
    if not names:
        args.console.info("no profiles yet: cells-loopback login SITE")
    return 0

"""Choose the default profile.

examples:
  cells-loopback use work
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the argument."""
    from cells_loopback.cli.arguments import complete_profiles

    name = parser.add_argument("name", metavar="NAME", help="the profile, see cells-loopback list")
    name.completer = complete_profiles  # type: ignore[attr-defined]  # argcomplete's documented hook


def run(args: argparse.Namespace) -> int:
    """Write the choice to config.toml."""
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.preferences import write_default_profile
    from cells_loopback.store.profiles import ProfileStore, no_such_profile

    store = ProfileStore(find_config_dir(args.config_dir))
    if not store.exists(args.name):
        raise no_such_profile(args.name)
    write_default_profile(store.config_dir, args.name)
    args.console.info(f"{args.name} is the default profile now")
    return 0

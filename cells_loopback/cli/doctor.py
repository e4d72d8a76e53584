"""Say what would stop a login, and the mend.

Looks at the config directory and its profiles, the redirect ports, the
browser, the server and everything on the way to it. Opens no browser and
changes nothing. Without SITE, the default profile's site is looked at, and all
profiles.

exit codes: 0 a login would work; otherwise what it would end with.

examples:
  cells-loopback doctor
  cells-loopback doctor files.example.com
  cells-loopback doctor --json
"""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from cells_loopback.cli.console import Console
    from cells_loopback.doctor import Finding
    from cells_loopback.loopback_login.options import LoginOptions

_WIDTH = 80
_LEVEL, _AREA = 9, 13


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the argument and the option."""
    parser.add_argument("site", nargs="?", metavar="SITE", help="e.g. files.example.com")
    parser.add_argument("--json", action="store_true", help="print a JSON list of area, level, message, mend")


def run(args: argparse.Namespace) -> int:
    """Examine, print, and return the exit code of the login that was examined."""
    from cells_loopback.doctor import examine, exit_code
    from cells_loopback.store.config_dir import find_config_dir

    findings = examine(lambda: _login_options(args), find_config_dir(args.config_dir))
    if args.json:
        members = ("area", "level", "message", "mend")
        rows = [{name: getattr(finding, name) for name in members} for finding in findings]
        args.console.result(json.dumps(rows, indent=2))
    else:
        for finding in findings:
            for line in render_finding(finding):
                args.console.result(line)
        _conclude(args.console, findings)
    return exit_code(findings)


def _login_options(args: argparse.Namespace) -> LoginOptions:
    """Return the options of a plain ``login SITE``, preferences of ``config.toml`` considered."""
    from cells_loopback.cli import make_parser
    from cells_loopback.cli.login import read_options
    from cells_loopback.errors import StoreError
    from cells_loopback.loopback_login.options import LoginOptions

    login = make_parser("login").parse_args([])
    login.site, login.profile, login.config_dir = args.site, args.profile, args.config_dir
    try:
        return read_options(login)
    except StoreError:  # config.toml is broken: doctor will say so
        return LoginOptions(site=args.site, profile=args.profile)


def render_finding(finding: Finding) -> Iterator[str]:
    """Yield the lines of one finding, at most 80 columns wide where no single word is wider."""
    from cells_loopback.process.terminal import safe

    margin = " " * (_LEVEL + _AREA)
    first = f"{finding.level:<{_LEVEL}}{finding.area:<{_AREA}}"
    yield from _wrap(first, margin, safe(finding.message))
    if finding.mend:
        yield from _wrap(margin + "mend: ", margin + "      ", safe(finding.mend))


def _wrap(first: str, margin: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [first.rstrip()]


def _conclude(console: Console, findings: list[Finding]) -> None:
    problems = sum(finding.level == "problem" for finding in findings)
    if problems:
        console.info(f"a login would not work: {problems} problem{'s' if problems > 1 else ''}")
    else:
        console.info("a login would work")

"""Show each session: site, user, valid until, renewable or not.

exit codes: 0 all sessions shown will serve; 3 there is none; 4 one of them
needs a person now, or will before long.

examples:
  cells-loopback status
  cells-loopback status --json
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import argparse

    from cells_loopback.store.profiles import Profile, ProfileStore


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="print a JSON list")


def run(args: argparse.Namespace) -> int:
    """Print the sessions, of all profiles or of the one that -p names."""
    from cells_loopback.errors import CellsLoopbackError, LoginRequiredError
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.preferences import nobody_has_logged_in
    from cells_loopback.store.profiles import ProfileStore

    store = ProfileStore(find_config_dir(args.config_dir))
    names = store.names() if args.profile is None else [args.profile]
    default = _default(store)
    rows: list[dict[str, Any]] = []
    failure: CellsLoopbackError | None = None
    for name in names:
        try:
            rows.append(describe(store.read(name), is_default=name == default))
        except CellsLoopbackError as error:
            args.console.error(error)
            failure = error
    _print(args, rows)
    if failure is not None:
        return failure.exit_code
    if not names:
        raise nobody_has_logged_in()
    return LoginRequiredError.exit_code if any(row["needs_person"] for row in rows) else 0


def _default(store: ProfileStore) -> str | None:
    from cells_loopback.errors import NotLoggedInError
    from cells_loopback.store.preferences import find_default_profile

    try:
        return find_default_profile(store)
    except NotLoggedInError:
        return None


def describe(profile: Profile, *, is_default: bool) -> dict[str, Any]:
    """Return one session as a member of the ``--json`` list."""
    from cells_loopback.clock import uptime, wall
    from cells_loopback.events import format_optional_time
    from cells_loopback.session.forecast import forecast

    tokens = profile.tokens
    outlook = forecast(profile, wall())
    return {
        "profile": profile.name,
        "site": profile.site.url,
        "user": profile.user.name,
        "expires_at": format_optional_time(tokens.expires_at),
        "valid": tokens.seconds_left(wall(), uptime()) > 0,
        "renewable": tokens.renewable and not profile.needs_login,
        "default": is_default,
        "store": profile.settings.store,
        "insecure": profile.settings.insecure,
        "pkce": profile.pkce_binding,
        "relogin": profile.settings.relogin,
        "needs_person": outlook.needs_person,
        "needs_person_at": format_optional_time(outlook.needs_person_at),
    }


def _print(args: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    if args.json:
        args.console.result(json.dumps(rows, indent=2))
        return
    from cells_loopback.process.terminal import safe

    for row in rows:
        args.console.result(("* " if row["default"] else "  ") + row["profile"])
        for label, text in _lines(row):
            args.console.result(f"    {label:<12} {safe(text)}")


def _lines(row: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("site", row["site"] + (" (certificates are not checked: --insecure)" if row["insecure"] else "")),
        ("user", row["user"] or "unknown"),
        ("token", _validity(row)),
        ("renewable", "yes" if row["renewable"] else "no"),
    ]
    if row["pkce"] in {"unbound", "foreign"}:
        lines.append(("pkce", f"{row['pkce']}: the server did not bind the login to this program"))
    if row["needs_person"]:
        lines.append(("log in", f"cells-loopback login --profile {row['profile']}"))
    elif row["needs_person_at"]:
        lines.append(("log in by", row["needs_person_at"] + " (unless it is used before)"))
    if row["store"] != "file":
        lines.append(("store", row["store"]))
    return lines


def _validity(row: dict[str, Any]) -> str:
    if row["expires_at"] is None:
        return "valid; the server did not say until when"
    return f"valid until {row['expires_at']}" if row["valid"] else f"ended {row['expires_at']}"

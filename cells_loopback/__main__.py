"""The program. ``token`` for a valid session is answered here, before anything else is imported.

``token`` runs before every command of a person's day, so its plainest call takes a path of its own:
read the file, check its owner and mode, compare two clocks, print. Whatever is unusual (an option not
known here, a keyring, a damaged file, a newer format) is left to `cells_loopback.cli`, which knows
everything; a test holds the two to the same output. Reading takes no lock, because a session is
replaced by one rename.
"""

from __future__ import annotations

import os
import sys

from cells_loopback.clock import measure_age, renewal_threshold, uptime, wall
from cells_loopback.errors import StoreError
from cells_loopback.store.config_dir import find_config_dir
from cells_loopback.store.snapshot import NOT_PLAIN, Unusual, find_profile_path, read_json, read_snapshot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from cells_loopback.store.lock import FileLock

_INTERRUPTED = 130
_MAX_DIGITS = 9
_SPECIAL = frozenset(' "\\')  # no token holds a space, and none that is common a character that curl escapes
_FORMATS = {
    "raw": "{}\n",
    "header": "Authorization: Bearer {}\n",
    "curl": 'header = "Authorization: Bearer {}"\n',
}
_OPTIONS = {
    "-p": "profile",
    "--profile": "profile",
    "--config-dir": "config_dir",
    "--format": "format",
    "--min-valid": "min_valid",
}


def main() -> NoReturn:
    """Run the command line of this process and end it."""
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except SystemExit as end:  # a signal
        code = end.code if isinstance(end.code, int) else 0
    uninterrupted = sys.modules.get("cells_loopback.process.uninterrupted")
    if uninterrupted is not None:
        uninterrupted.wait_until_done()
    if sys.stderr is not None:
        try:
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads it
            pass
    # At once: the interpreter would wait for a thread that a cancelled login has left behind.
    os._exit(code)


def _run(arguments: Sequence[str]) -> int:
    lock = None
    if "token" in arguments and "_ARGCOMPLETE" not in os.environ:
        try:
            text, lock = _answer_token(arguments)
        except NOT_PLAIN as error:
            if isinstance(error, StoreError) and error.code == "locked":
                return _tell(error)  # the ordinary command would only wait for as long again
        else:
            if text is not None and _print(text):
                return 0
    if arguments[-2:] == ["s3", "credentials"] and "_ARGCOMPLETE" not in os.environ:
        from cells_loopback.early_credentials import answer_credentials

        text = answer_credentials(arguments[:-2])
        if text is not None and _print(text):
            return 0
    if "login" in arguments and "_ARGCOMPLETE" not in os.environ:
        return _log_in(arguments)
    from cells_loopback.cli import main as run_command

    try:
        return run_command(arguments, lock)
    finally:
        if lock is not None:
            lock.release()


def _log_in(arguments: Sequence[str]) -> int:
    """Run a command that is likely a login, its browser opened first where that can be."""
    from cells_loopback.early_browser import open_early_browser

    early = open_early_browser(arguments)
    try:
        from cells_loopback.cli import main as run_command

        return run_command(arguments, early=early)
    finally:
        if early is not None:
            early.abandon()


def _print(text: str) -> bool:
    """Print the result; False when stdout takes nothing, of which the ordinary command tells."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads it any more
        return True
    except (OSError, ValueError, AttributeError):
        return False
    return True


def _tell(error: StoreError) -> int:
    from cells_loopback.cli.console import Console

    Console().error(error)
    return error.exit_code


def _answer_token(arguments: Sequence[str]) -> tuple[str | None, FileLock | None]:
    """Return what to print, or the profile's lock when a renewal is due and is ours to do.

    The lock is not held where another's renewal has failed: the ordinary command tells how.
    """
    options = _read_options(arguments)
    style = options.get("format", "raw")
    min_valid = float(int(options["min_valid"])) if "min_valid" in options else None
    config_dir = find_config_dir(options.get("config_dir"))
    path = find_profile_path(config_dir, options.get("profile"))
    stale = os.stat(path)  # before the file is read, so that a change meanwhile is seen
    document = _fresh_document(path, min_valid)
    if document is not None:
        return _render(path, document, style), None
    # Due: the first process here renews, the others wait for it without importing anything.
    from cells_loopback.store.lock import FileLock

    found: list[str] = []

    def renewed() -> bool:
        status = os.stat(path)
        if (status.st_ino, status.st_mtime_ns) == (stale.st_ino, stale.st_mtime_ns):
            return False
        document = _fresh_document(path, 0.0)
        found.extend(() if document is None else (_render(path, document, style),))
        return document is not None

    lock = FileLock(path[: -len(".json")] + ".lock")

    def failed() -> bool:
        failure = lock.read_note().partition("\n")[2]  # as `renewal_note` writes it
        return bool(failure) and read_json(failure)["at"] >= lock.wanted_since

    held = lock.acquire(until=lambda: renewed() or failed())
    if held and renewed():
        lock.release()
    return (found[0], None) if found else (None, lock)


def _read_options(arguments: Sequence[str]) -> dict[str, str]:
    """Read the arguments of a plain ``token`` call; `Unusual` for any other."""
    environ = os.environ
    if environ.get("CELLS_LOOPBACK_TOKEN"):
        raise Unusual
    options: dict[str, str] = {}
    rest = iter(arguments)
    commands = 0
    for argument in rest:
        if argument == "token":
            commands += 1
            continue
        name, equals, value = argument.partition("=")
        if name not in _OPTIONS or (equals and not name.startswith("--")):
            raise Unusual
        options[_OPTIONS[name]] = value if equals else next(rest)
        if options[_OPTIONS[name]].startswith("-"):
            raise Unusual  # an option whose value was forgotten
    if commands != 1 or "" in options.values() or options.get("format", "raw") not in {*_FORMATS, "json"}:
        raise Unusual
    min_valid = options.get("min_valid", "0")
    if not min_valid.isdecimal() or len(min_valid) > _MAX_DIGITS:
        raise Unusual
    return options


def _render(path: str, document: dict[str, Any], style: str) -> str:
    """Return what ``--format`` asks for."""
    if style == "json":
        from cells_loopback.early_json import render_token_json

        return render_token_json(path, document)
    return _FORMATS[style].format(document["token"]["access_token"])


def _fresh_document(path: str, min_valid: float | None) -> dict[str, Any] | None:
    """Return the stored session, None when its access token is due for renewal."""
    document = read_snapshot(path)
    tokens = document["token"]
    token, lifetime = tokens["access_token"], tokens["lifetime"]
    if not isinstance(token, str) or tokens["token_type"] != "Bearer":  # noqa: S105 - the name of a type
        raise Unusual
    if not (token and token.isascii() and token.isprintable()) or not _SPECIAL.isdisjoint(token):
        raise Unusual
    if lifetime is None:
        return document
    age = measure_age(tokens["obtained_at"], tokens["obtained_uptime"], wall(), uptime())
    threshold = renewal_threshold(min_valid, lifetime, tokens["renew_early"])
    if lifetime - age > max(0.0, threshold):
        return document
    if not tokens["refresh_token"] or document["renewals"].get("rejected_at") is not None:
        raise Unusual
    return None


if __name__ == "__main__":
    main()

"""Log in to a site in the browser; without SITE, again to the profile's own.

Opens the browser, receives the answer on this machine and stores the session.
While it waits it also takes the address that a browser on another machine
ended at, pasted as a line. A session that still works is kept unless --force is
given.

examples:
  cells-loopback login files.example.com
  cells-loopback login                            again, to the default profile
  cells-loopback login files.example.com -p work  a second account on a site
  cells-loopback login files.example.com --paste  the browser is elsewhere
  pass cells | cells-loopback login files.example.com --with-token
"""

from __future__ import annotations

import errno
import os
import sys

from cells_loopback.cli.arguments import parse_seconds
from cells_loopback.cli.console import is_terminal
from cells_loopback.cli.narration import EventPrinter, Narrator, interrupt_when_unread
from cells_loopback.errors import CellsLoopbackError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    import asyncio

    from cells_loopback.cli.console import Console
    from cells_loopback.early_browser import EarlyBrowser
    from cells_loopback.loopback_login.options import LoginOptions
    from cells_loopback.secret import Secret
    from cells_loopback.session.session import Session

INTERRUPTED = 130
SECRET_VARIABLE = "CELLS_LOOPBACK_CLIENT_SECRET"  # noqa: S105 - the variable's name


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("site", nargs="?", metavar="SITE", help="e.g. files.example.com")
    client = parser.add_argument_group("the client")
    client.add_argument("--client-id", metavar="ID", help="default: cells-client")
    client.add_argument("--client-secret-file", metavar="FILE", help=f"- is stdin; or set {SECRET_VARIABLE}")
    client.add_argument(
        "--redirect-uri",
        action="append",
        default=[],
        metavar="URI",
        help="as registered; repeatable, tried in order; [3636-3666] for a range, 0 for any port",
    )
    client.add_argument("--scope", metavar="SCOPES", help="default: openid email profile pydio offline")
    client.add_argument(
        "--pkce",
        choices=("auto", "required", "off"),
        help="auto goes on, with a warning, where it is not bound",
    )
    browser = parser.add_argument_group("the browser")
    browser.add_argument("--browser", metavar="COMMAND", help="default: $BROWSER, then the system's")
    browser.add_argument("--no-browser", action="store_true", help="print the URL and wait")
    browser.add_argument("--paste", action="store_true", help="use the server's own copy-paste page")
    browser.add_argument("--timeout", type=parse_seconds, metavar="SECONDS", help="default: 300")
    trust = parser.add_argument_group("trust")
    trust.add_argument("--ca-bundle", metavar="FILE", help="certificates to trust, PEM")
    trust.add_argument(
        "--insecure", action="store_true", default=None, help="check no certificate; allow http"
    )
    session = parser.add_argument_group("the session")
    session.add_argument(
        "--with-token", action="store_true", help="store a personal access token, read from stdin"
    )
    session.add_argument("--force", action="store_true", help="log in although the stored session works")
    session.add_argument("--store", choices=("file", "keyring"), help="where the secrets lie (default: file)")
    session.add_argument(
        "--relogin",
        choices=("notify", "browser", "headless", "never"),
        help="what the keep-alive does when the session cannot be renewed (default: notify)",
    )
    session.add_argument("--app-name", metavar="NAME", help='the page says "return to NAME"')
    session.add_argument("--json", action="store_true", help="print each step as a JSON object a line")


def run(args: argparse.Namespace) -> int:
    """Log in."""
    if args.json:
        return _run_json(args)
    from cells_loopback.clock import wall

    started_at = wall()
    session = _log_in_as_asked(args, Narrator(args.console, no_browser=args.no_browser))
    _conclude(args.console, session, started_at)
    return 0


def log_in_again(args: argparse.Namespace) -> Session:
    """Log in to the chosen profile once more, for ``token --login``, as ``config.toml`` has it."""
    from cells_loopback.loopback_login.options import LoginOptions
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.preferences import read_login_options

    preset = read_login_options(find_config_dir(args.config_dir))
    options = LoginOptions(profile=_chosen_profile(args), **preset)
    lines = StdinLines() if is_terminal(sys.stdin) else None
    return _log_in(args, options, Narrator(args.console, no_browser=False), lines)


def read_options(args: argparse.Namespace) -> LoginOptions:
    """Turn the arguments into the options of the login, preferences of ``config.toml`` considered."""
    from cells_loopback.loopback_login.options import DEFAULT_TIMEOUT, LoginOptions
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.preferences import read_login_options

    if args.with_token and args.client_secret_file == "-":  # noqa: S105 - stdin, no password
        raise UsageError(
            "stdin cannot hold both a token and a client secret", hint="put the secret in a file"
        )
    preset = read_login_options(find_config_dir(args.config_dir))
    timeout = args.timeout if args.timeout is not None else preset.get("timeout", DEFAULT_TIMEOUT)
    return LoginOptions(
        site=args.site,
        profile=_chosen_profile(args),
        client_id=args.client_id,
        client_secret=read_client_secret(args.client_secret_file),
        redirect_uris=tuple(args.redirect_uri),
        scope=args.scope,
        pkce=args.pkce or preset.get("pkce"),
        browser=args.browser or preset.get("browser"),
        open_browser=not (args.no_browser or args.paste),
        paste=args.paste,
        timeout=float(timeout),
        ca_bundle=_absolute(args.ca_bundle) if args.ca_bundle else None,
        insecure=args.insecure,
        force=args.force,
        store=args.store or preset.get("store"),
        relogin=args.relogin or preset.get("relogin"),
        app_name=args.app_name,
    )


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(path)
    except FileNotFoundError:
        raise UsageError(
            "the current directory no longer exists", hint=f"give an absolute path in place of {path}"
        ) from None


def _chosen_profile(args: argparse.Namespace) -> str | None:
    """Return the profile that is named; an empty variable names none, an empty option is a mistake."""
    if args.profile is not None:
        return str(args.profile)
    return os.environ.get("CELLS_LOOPBACK_PROFILE") or None


def read_client_secret(path: str | None) -> Secret | None:
    """Read the client secret from a file, from stdin (``-``) or from the environment. Raises `UsageError`."""
    from cells_loopback.secret import Secret

    if path is None:
        secret = os.environ.get(SECRET_VARIABLE, "")
        return Secret(secret) if secret else None
    try:
        if path == "-":
            text = _read_line()
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read(10_000)
    except (OSError, UnicodeDecodeError) as error:
        reason = _why_unread(error)
        raise UsageError(f"cannot read the client secret from {path}: {reason}", hint="name a file") from None
    if not text.strip("\r\n"):
        raise UsageError(f"the client secret in {path} is empty", hint="put it there on one line")
    return Secret(text.strip("\r\n"))


def _read_line() -> str:
    """Read a line of stdin. Raises ``OSError``, for a closed one too, and ``UnicodeDecodeError``."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.readline()


def _why_unread(error: OSError | UnicodeDecodeError) -> str:
    return getattr(error, "strerror", None) or "it is not text"


def _log_in_as_asked(args: argparse.Namespace, narrator: Narrator) -> Session:
    """Log in as the options of this command say."""
    options = read_options(args)
    if args.with_token:
        return _store_token(args, options, narrator)
    lines = StdinLines() if _may_paste(args) else None
    return _log_in(args, options, narrator, lines, one_time_address=not args.json, early=args.early)


def _may_paste(args: argparse.Namespace) -> bool:
    if args.paste:
        return sys.stdin is not None
    # A program that embeds `login --json` keeps its stdin to itself.
    if args.json or args.client_secret_file == "-":  # noqa: S105 - stdin, no password
        return False
    return is_terminal(sys.stdin)


def _log_in(
    args: argparse.Namespace,
    options: LoginOptions,
    narrator: Narrator,
    lines: StdinLines | None,
    *,
    one_time_address: bool = True,
    early: EarlyBrowser | None = None,
) -> Session:
    from cells_loopback.loopback_login.opening import Surroundings, open_at_once
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.profiles import ProfileStore

    narrator.takes = "" if lines is None else "code" if options.paste else "address"
    surroundings = Surroundings(
        on_event=narrator.tell,
        on_notice=args.console.warn,
        pasted_lines=lines,
        one_time_address=one_time_address,
    )
    opening = open_at_once(options, surroundings, ProfileStore(find_config_dir(args.config_dir)), early)
    if early is not None:
        early.abandon()  # unless it is part of the opening
    try:
        # Only now what takes longest to import: the person is looking at the browser.
        import asyncio

        from cells_loopback.loopback_login.flow import log_in
        from cells_loopback.process.termination import cancelled_by_signals

        login = log_in(options, surroundings, args.config_dir, opening)
        return asyncio.run(cancelled_by_signals(login))
    except BaseException:
        if opening is not None:
            opening.abandon()
        raise


def _store_token(args: argparse.Namespace, options: LoginOptions, narrator: Narrator) -> Session:
    from cells_loopback.loopback_login.flow import failed_event, logged_in_event
    from cells_loopback.loopback_login.personal_token import log_in_with_token
    from cells_loopback.session.session import Session, parse_given_token
    from cells_loopback.store.config_dir import find_config_dir
    from cells_loopback.store.profiles import ProfileStore

    token = parse_given_token(_read_token(args.console))
    store = ProfileStore(find_config_dir(args.config_dir))
    try:
        profile = log_in_with_token(options, token, store, args.console.warn)
    except CellsLoopbackError as error:
        narrator.tell(failed_event(error))
        raise
    narrator.tell(logged_in_event(profile))
    return Session.load(profile.name, config_dir=args.config_dir)


def _read_token(console: Console) -> str:
    """Read what is piped in or typed, '' when it is nothing. Raises `UsageError`."""
    try:
        if not is_terminal(sys.stdin):
            return _read_line()
        console.info("paste the personal access token, then Enter:")
        import getpass

        return getpass.getpass("")
    except EOFError:  # Ctrl-D
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the token from stdin: {_why_unread(error)}",
            hint="pipe it in: pass cells | cells-loopback login SITE --with-token",
        ) from None


class StdinLines:
    """The lines that a person types, read in a thread that ends with the process."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[str] | None = None

    def __aiter__(self) -> StdinLines:
        return self

    async def __anext__(self) -> str:
        """Wait for the next line; waiting may be given up and taken up again."""
        import asyncio

        if self._queue is None:
            self._queue = asyncio.Queue()
            import threading

            _read_in_background()
            reader = (asyncio.get_running_loop(), self._queue)
            threading.Thread(target=_read_stdin, args=reader, daemon=True).start()
        line = await self._queue.get()
        if not line:
            self._queue.put_nowait("")
            raise StopAsyncIteration
        return line


def _read_in_background() -> None:
    """Let a read from the terminal fail in a background job, which it would stop (``login ... &``)."""
    import signal

    if hasattr(signal, "SIGTTIN"):
        signal.signal(signal.SIGTTIN, signal.SIG_IGN)


def _read_stdin(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[str]) -> None:
    try:
        try:
            for line in sys.stdin:
                loop.call_soon_threadsafe(queue.put_nowait, line)
        except (ValueError, OSError):  # it is closed, not text, or another job's: nothing more will come
            pass
        loop.call_soon_threadsafe(queue.put_nowait, "")
    except RuntimeError:  # the loop has ended
        pass


def _conclude(console: Console, session: Session, started_at: float) -> None:
    profile = session.stored
    who = f" as {profile.user.name}" if profile.user.name else ""
    if profile.renewals.logged_in_at < started_at:
        console.info(f"already logged in to {profile.site.url}{who}; --force logs in again")
        return
    console.info(f"logged in to {profile.site.url}{who} (profile {profile.name})")
    if not profile.tokens.renewable:
        console.info("this session cannot be renewed")
    from cells_loopback.session.session import TOKEN_VARIABLE

    if os.environ.get(TOKEN_VARIABLE):
        console.warn(
            f"{TOKEN_VARIABLE} is set: commands go on using that until it is unset, or -p names a profile"
        )


def _run_json(args: argparse.Namespace) -> int:
    """Log in with events on stdout; a closed stdout cancels the login."""
    printer = EventPrinter(args.console)
    interrupt_when_unread(printer)
    try:
        _log_in_as_asked(args, printer)
    except CellsLoopbackError as error:
        printer.end_with(error)
        raise
    except BrokenPipeError:
        return INTERRUPTED
    except Exception as error:
        from cells_loopback.cli import defect

        printer.end_with(defect(error))
        raise
    except BaseException as end:
        code = end.code if isinstance(end, SystemExit) else INTERRUPTED
        if isinstance(end, (KeyboardInterrupt, SystemExit)) and isinstance(code, int):
            printer.end_with(_interrupted(), exit_code=code)
        raise
    return 0


def _interrupted() -> CellsLoopbackError:
    return CellsLoopbackError("the login was interrupted", hint="log in again", code="interrupted")

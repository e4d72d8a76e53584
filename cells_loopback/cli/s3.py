"""Give S3 clients the session: credentials, variables, or their configuration.

credentials   what AWS SDKs expect of a credential_process
env           lines that set the variables in a shell
setup CLIENT  the configuration of aws, rclone, s3cmd or mc

The bucket is `io`. aws and rclone come back for new credentials by themselves,
for as long as the session lives; s3cmd and mc have to be started with `exec`.

examples:
  cells-loopback s3 setup aws --write
  aws --profile files.example.com s3 ls s3://io
  eval "$(cells-loopback s3 env)"
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from cells_loopback.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from cells_loopback.integrations.s3_clients import Client, Connection
    from cells_loopback.session.session import Session

_CLIENTS = ("aws", "rclone", "s3cmd", "mc")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.usage = "cells-loopback s3 credentials | env | setup CLIENT [options]"
    parser.add_argument("what", choices=("credentials", "env", "setup"), help="what to print")
    parser.add_argument("client", nargs="?", choices=_CLIENTS, help="for setup: " + ", ".join(_CLIENTS))
    parser.add_argument(
        "--shell", choices=("sh", "fish", "powershell"), help="for env: the shell that reads it (default sh)"
    )
    setup = parser.add_argument_group("options of setup")
    setup.add_argument("--write", action="store_true", help="merge it into the client's own file")
    setup.add_argument("--name", metavar="NAME", help="what the client calls the site (default: the profile)")
    setup.add_argument("--file", metavar="FILE", help="another file than the client's own")


def run(args: argparse.Namespace) -> int:
    """Print what is asked for, or write it."""
    _check_usage(args)
    from cells_loopback.session.session import Session

    session = Session.load(args.profile, config_dir=args.config_dir)
    if args.what == "credentials":
        from cells_loopback.integrations.s3 import render_credential_process

        args.console.result(render_credential_process(session))
    elif args.what == "env":
        from cells_loopback.integrations.s3_environment import clear_the_way, environment, render_exports

        variables = environment(session.site, session.access_token())
        changes = clear_the_way(os.environ, os.path.expanduser("~"))
        args.console.result(render_exports({**variables, **changes}, args.shell or "sh"))
    else:
        _set_up(args, session)
    return 0


def _check_usage(args: argparse.Namespace) -> None:
    if args.what == "setup" and args.client is None:
        raise UsageError("setup needs a client", hint=f"name one of: {', '.join(_CLIENTS)}")
    if args.what != "setup" and (args.client or args.write or args.name or args.file):
        raise UsageError(f"a client and its options are for setup, not for {args.what}", hint="see s3 --help")
    if args.what != "env" and args.shell:
        raise UsageError(f"--shell is for env, not for {args.what}", hint="see s3 --help")


def _set_up(args: argparse.Namespace, session: Session) -> None:
    from cells_loopback.integrations.s3_clients import CLIENTS

    client = CLIENTS[args.client]
    connection = _describe(args, session, client)
    setup = client.configure(connection, os.environ, os.path.expanduser("~"))
    for number, file in enumerate(setup.files):
        if args.write:
            from cells_loopback.integrations.config_file import update_file

            update = update_file(file.path, file.merge)
            kept = f", the former one is {update.backup}" if update.backup else ""
            args.console.info(f"{file.path}: {'written' + kept if update.changed else 'nothing to change'}")
        else:
            heading = "" if file.text.startswith("{") else f"# {file.path}\n"
            args.console.result("\n" * bool(number) + heading + file.text.rstrip("\n"))
    for note in setup.notes:
        args.console.info(note)


def _describe(args: argparse.Namespace, session: Session, client: Client) -> Connection:
    from cells_loopback.integrations.s3 import fetch_credentials
    from cells_loopback.integrations.s3_clients import Connection

    profile = session.stored
    name = client.clean_name(args.name or profile.name)
    if args.name and name != args.name:
        raise UsageError(
            f"{args.client} does not take the name {args.name!r}", hint=f"it takes: --name {name}"
        )
    return Connection(
        site=session.site,
        name=name,
        program=_own_program(),
        session_options=(*_config_dir_option(args), "--profile", profile.name),
        fetch_credentials=lambda: fetch_credentials(session),
        ca_bundle=profile.settings.ca_bundle,
        insecure=profile.settings.insecure,
        file=os.path.abspath(os.path.expanduser(args.file)) if args.file else None,
    )


def _own_program() -> tuple[str, ...]:
    """Return how this program is started from anywhere, whatever the PATH and the environment are then."""
    launcher = os.path.abspath(sys.argv[0])
    if os.path.basename(launcher) in {"cells-loopback", "cells-loopback.exe"} and os.path.isfile(launcher):
        return (launcher,)
    return (sys.executable, "-m", "cells_loopback")


def _config_dir_option(args: argparse.Namespace) -> tuple[str, ...]:
    if not (args.config_dir or os.environ.get("CELLS_LOOPBACK_CONFIG_DIR")):
        return ()
    from cells_loopback.store.config_dir import find_config_dir

    return ("--config-dir", find_config_dir(args.config_dir))

"""Over SSH the browser is on the person's own machine: how the callback's port comes to it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def ssh_forward_command(port: int, environ: Mapping[str, str], hostname: str, user: str) -> str:
    """Return the line that brings ``port`` of this machine to the one where the browser is.

    To be typed there. The address is the one that this SSH session came in by, as sshd tells it:
    ``SSH_CONNECTION`` is client address, client port, server address, server port.
    """
    address, ssh_port = hostname, "22"
    connection = environ.get("SSH_CONNECTION", "").split()
    if len(connection) == 4:
        ssh_port = connection[3]
        through = connection[2].removeprefix("::ffff:")
        if through != "::1" and not through.startswith("127.") and "%" not in through:
            address = through  # not one that has a meaning on this machine only
    destination = f"{user}@{address}" if user else address
    if not all(char.isalnum() or char in "@.:_-" for char in destination):
        from shlex import quote

        destination = quote(destination)
    return f"ssh {'' if ssh_port == '22' else f'-p {ssh_port} '}-L {port}:localhost:{port} {destination}"


def host_and_user() -> tuple[str, str]:
    """Return host name and user name, for `ssh_forward_command`; the latter '' where it has none."""
    import getpass
    import platform

    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user id without a name, as in a container
        user = ""
    return platform.node(), user

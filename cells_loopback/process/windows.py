"""What only Windows needs: programs by their full path, a directory's ACL, a console with colours.

A program's bare name is looked for in the current directory before the system's own (CreateProcess,
``lpApplicationName``), so whatever lies in a downloads folder could answer in its place.
"""

from __future__ import annotations

import os
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS = 20
_ENABLE_VIRTUAL_TERMINAL_PROCESSING = 4
_ELSEWHERE = {"powershell": r"WindowsPowerShell\v1.0\powershell"}


def system_program(name: str, platform: str = sys.platform, environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of one of the system's programs; elsewhere than on Windows ``name`` as it is."""
    if platform != "win32":
        return name
    root = environ.get("SYSTEMROOT") or r"C:\Windows"
    return rf"{root}\System32\{_ELSEWHERE.get(name, name)}.exe"


def find_on_path(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the path of a program: a path as it is, a bare name from the PATH alone.

    `shutil.which` looks in the current directory before that.
    """
    if os.path.dirname(name):
        candidates = [name]
    else:
        directories = filter(None, environ.get("PATH", "").split(os.pathsep))
        candidates = [os.path.join(directory, name) for directory in directories]
    extensions = [one for one in environ.get("PATHEXT", ".COM;.EXE;.BAT;.CMD").lower().split(";") if one]
    endings = [""] if name.lower().endswith(tuple(extensions)) else extensions
    paths = (candidate + ending for candidate in candidates for ending in endings)
    return next(filter(os.path.isfile, paths), None)


def restrict_to_current_user(path: str) -> None:
    """Give a new directory an ACL with its owner alone, the equivalent of mode 0700.

    A failure leaves it the ACL that it inherits, in most cases that of the user's own profile directory.
    """
    import subprocess

    def output_of(command: list[str]) -> str:
        return subprocess.run(
            command, check=False, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        ).stdout

    try:
        sid = read_sid(output_of([system_program("whoami"), "/user", "/fo", "csv", "/nh"]))
        if sid:
            output_of(restrict_command(path, sid))
    except (OSError, subprocess.SubprocessError):
        pass


def read_sid(output: str) -> str:
    r"""Read the security identifier from ``whoami /user /fo csv /nh``: ``"pc\alice","S-1-5-21-..."``; or ''.

    The name alone would not do: there may be one in the domain and another one on this machine.
    """
    found = re.search(r'"(S-1-[0-9-]+)"\s*$', output)
    return found[1] if found else ""


def restrict_command(path: str, sid: str) -> list[str]:
    """Return the ``icacls`` call that drops inherited rights and grants everything to one user."""
    return [system_program("icacls"), path, "/inheritance:r", "/grant:r", f"*{sid}:(OI)(CI)F"]


def draws_colors(descriptor: int) -> bool:
    """Make a console obey escape sequences, which it shows as they are otherwise; True elsewhere."""
    if sys.platform == "win32":
        import ctypes
        import msvcrt

        console, mode = ctypes.c_void_p(msvcrt.get_osfhandle(descriptor)), ctypes.c_ulong()
        kernel32 = ctypes.WinDLL("kernel32")
        if not kernel32.GetConsoleMode(console, ctypes.byref(mode)):
            return False
        return bool(kernel32.SetConsoleMode(console, mode.value | _ENABLE_VIRTUAL_TERMINAL_PROCESSING))
    else:  # noqa: RET505 (mypy understands the two halves only so)
        return True

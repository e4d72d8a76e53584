"""Run commands as Windows would, as far as Linux can pretend: ``python as_windows.py "login SITE" token``.

The library modules are imported first, for Linux. Then our own code finds ``sys.platform`` to be
``win32``, and none of the modules, calls and signals that Windows does not have.
"""

import asyncio
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
from types import ModuleType

LIBRARIES = (
    "aiohttp.web", "argcomplete", "concurrent.futures.thread", "cryptography.x509", "getpass", "httpx",
    "joserfc.jwt", "platformdirs", "shutil", "tempfile", "tomlkit", "truststore", "webbrowser",
)  # fmt: skip
MODULES = ("fcntl", "grp", "pwd", "resource", "termios", "tty")
CALLS = {
    os: ("chown", "fchmod", "getegid", "geteuid", "getgid", "getuid", "uname", "O_NOFOLLOW"),
    select: ("poll",),
    signal: ("SIGHUP", "SIGKILL", "SIGPIPE", "SIGTTIN", "SIGXFSZ", "pthread_kill", "pthread_sigmask"),
}


def pretend() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    # What Windows has instead; the lock is the one part that this cannot try.
    msvcrt = ModuleType("msvcrt")
    vars(msvcrt).update(LK_NBLCK=2, LK_UNLCK=0, locking=lambda *_: None, get_osfhandle=lambda fd: fd)
    sys.modules["msvcrt"] = msvcrt
    vars(socket)["SO_EXCLUSIVEADDRUSE"] = socket.SO_REUSEADDR
    vars(subprocess).update(CREATE_NEW_PROCESS_GROUP=0, CREATE_NO_WINDOW=0, DETACHED_PROCESS=0)
    for name in MODULES:
        vars(sys)["modules"][name] = None
    asyncio.new_event_loop().close()  # its own calls are looked up before ours are taken away
    for module, names in CALLS.items():
        for name in names:
            delattr(module, name)
    vars(sys)["platform"] = "win32"


if __name__ == "__main__":
    pretend()
    from cells_loopback.cli import main

    for command in sys.argv[1:]:
        code = main(command.split())
        if code:
            sys.exit(code)

"""A real systemd user manager of an ordinary user, in namespaces of its own, for one test."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from requires import require_program

if TYPE_CHECKING:
    from types import TracebackType

UID = 54321
UNPRIVILEGED = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--bounding-set=-all"]
UNPRIVILEGED += ["--inh-caps=-all"]

# The manager refuses to run where systemd did not boot the machine, and as process 1; it wants a control
# group that it may divide. A system manager would have made /run/systemd/unit-root, where sandboxes are
# put together, and D-Bus serves only a user who has a name.
SETUP = """\
set -eu
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/system /run/overlays {unit_root} {runtime_dir}
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/manager
echo $$ > /sys/fs/cgroup/manager/cgroup.procs
chown -R {uid} /sys/fs/cgroup/manager {runtime_dir}
chmod 700 {runtime_dir}
(cat /etc/passwd; echo somebody:x:{uid}:{uid}::{home}:/bin/sh) > /run/passwd
mount --bind /run/passwd /etc/passwd
{overlays}
{unprivileged} env -i {environment} /lib/systemd/systemd --user
"""
OVERLAY = """\
mkdir -p /run/overlays{path}/upper /run/overlays{path}/work
mount -t overlay -o lowerdir={path},upperdir=/run/overlays{path}/upper,workdir=/run/overlays{path}/work \
overlay {path}
chmod a+x {path}
"""


class UserManager:
    """The manager, its home directory, and a way to run programs as its user.

    Without ``sandboxes`` it cannot give a service a file system of its own, as on machines that keep
    user namespaces from ordinary users.
    """

    def __init__(self, *, sandboxes: bool = True) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can start a user manager in namespaces of its own")
        for program in ("/lib/systemd/systemd", "unshare", "nsenter", "setpriv", "systemd-run"):
            require_program(program)
        self.home = tempfile.mkdtemp(prefix="user-manager-")
        os.chown(self.home, UID, UID)
        self._runtime_dir = f"/run/user/{UID}"
        self.environ = {
            "HOME": self.home,
            "PATH": os.environ["PATH"],
            "USER": "somebody",
            "XDG_RUNTIME_DIR": self._runtime_dir,
        }
        self._setup = SETUP.format(
            uid=UID,
            home=self.home,
            runtime_dir=self._runtime_dir,
            unit_root="/run/systemd/unit-root" if sandboxes else "",
            overlays="".join(OVERLAY.format(path=path) for path in _closed_directories()),
            unprivileged=" ".join(UNPRIVILEGED),
            environment=" ".join(f"{name}={value}" for name, value in self.environ.items()),
        )
        self._cgroup = os.path.join(_cgroup2_mount(), f"cells-loopback-test-{secrets.token_hex(8)}")

    def __enter__(self) -> UserManager:
        os.mkdir(self._cgroup)
        join = f'echo $$ > "{self._cgroup}/cgroup.procs" && exec "$@"'
        unshare = ["unshare", "--mount", "--pid", "--cgroup", "--fork", "--kill-child"]
        self._process = subprocess.Popen(
            ["sh", "-c", join, "sh", *unshare, "sh", "-c", self._setup],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_until(lambda: self.run("systemctl", "--user", "is-system-running").stdout == "running\n")
        except BaseException:
            self._end()
            raise
        return self

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the manager's user, in its namespaces."""
        first = _children(self._process.pid)
        if not first:
            return subprocess.CompletedProcess(command, 1, "", "the manager is not up")
        enter = ["nsenter", f"--target={first[0]}", "--mount", "--pid", "--cgroup", *UNPRIVILEGED]
        return subprocess.run(
            [*enter, *command],
            env={**self.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for first in _children(self._process.pid):
            os.kill(first, signal.SIGKILL)  # the first process of a PID namespace takes all others along
        self._process.wait(10)
        _wait_until(lambda: _remove_cgroup(self._cgroup))
        shutil.rmtree(self.home)


def _cgroup2_mount() -> str:
    with open("/proc/mounts") as mounts:
        for _device, directory, kind, *_ in map(str.split, mounts):
            if kind == "cgroup2":
                return directory
    pytest.fail("there is no cgroup2 file system")


def _closed_directories() -> list[str]:
    """Return the directories on the way to our Python and its packages that other users cannot enter."""
    paths = map(Path, (sys.base_prefix, sys.prefix, __file__))
    parents = {parent for path in paths for parent in path.parents}
    return sorted(str(parent) for parent in parents if not parent.stat().st_mode & stat.S_IXOTH)


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children") as children:
        return [int(child) for child in children.read().split()]
    return []


def _remove_cgroup(directory: str) -> bool:
    with contextlib.suppress(OSError):
        for parent, _, _ in os.walk(directory, topdown=False):
            os.rmdir(parent)
    return not os.path.exists(directory)


def _wait_until(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen within 20 seconds"
        time.sleep(0.05)

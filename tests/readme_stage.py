"""The README as data, and a stage on which its commands run as they are written.

On the stage ``files.example.com`` and ``cells.example.org`` are embedded servers, trusted like any other
https site; the person's browser logs in by itself; and what is shown names them as the README does.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from cells_loopback.testing import CellsServer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

PATH = Path(__file__).parent.parent / "README.md"
HOSTS = ("files.example.com", "cells.example.org")
TIMEOUT = 90.0

_FENCE = re.compile(r"(?:<!-- (?P<marker>[^\n]*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
_SECRET = re.compile(r"\b(ory_at_)[\w.~-]+")
_PERSON = """\
import sys
from cells_loopback.testing import Browser
Browser({ca_file!r}).sign_in(sys.argv[1], "alice", "open-sesame")
"""
# Programs of the person's machine that the README's commands run beside ours.
_PROGRAMS = {
    "firefox": '#!/bin/sh\nexec "{python}" "{stage}/person.py" "$@"\n',
    # It knows no other setting for the authority that all the others find in the environment.
    "aws": '#!/bin/sh\nAWS_CA_BUNDLE={ca_file} exec "{aws}" "$@"\n',
    # No container: the image's program with the variables that it was given, and an empty home.
    "docker": """\
#!/bin/sh
set -eu
[ "$1 $2" = "run --rm" ]; shift 2
while [ "$1" = -e ]; do
    case $2 in *=*) set -- "$@" "$2" ;; *) eval "set -- \\"\\$@\\" \\"$2=\\$$2\\"" ;; esac
    shift 2
done
[ "$1" = IMAGE ]; shift
exec env -i "PATH=$PATH" HOME=/nonexistent SSL_CERT_FILE="$SSL_CERT_FILE" "$@" \\
    cells-loopback api /a/frontend/state
""",
    # No systemd, above all not that of the person who runs this.
    "systemctl": "#!/bin/sh\nexit 1\n",
    "systemd-run": "#!/bin/sh\nexit 1\n",
    "busctl": "#!/bin/sh\nexit 1\n",
}
_FILES = {
    "nightly-report.sh": '#!/bin/sh\n[ -n "$CELLS_ACCESS_TOKEN" ] && echo "a report of $CELLS_SITE"\n',
}


@dataclass(frozen=True)
class Block:
    """A fenced block; ``marker`` is the comment right above it, or ''."""

    marker: str
    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The commands: the lines of ``sh``, those behind a prompt of ``console``."""
        lines = self.text.splitlines()
        if self.language == "console":
            return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line.rstrip() for line in lines if line.strip()] if self.language == "sh" else []


def read() -> str:
    """Return the README."""
    return PATH.read_text(encoding="utf-8")


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks in their order."""
    for found in _FENCE.finditer(text):
        yield Block(found["marker"] or "", found["language"], found["text"])


class Stage:
    """A person's machine for one run through the README."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.home = self._bin_directory = Path()
        self.servers: list[CellsServer] = []
        self.environment: dict[str, str] = {}

    def __enter__(self) -> Stage:
        with ExitStack() as stack:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="readme-")))
            self.servers = [stack.enter_context(CellsServer(tls=True)) for _ in HOSTS]
            self.home, self._bin_directory = directory / "home", directory / "bin"
            self._prepare(directory)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def started(
        self, command: str, *, environment: Mapping[str, str] | None = None
    ) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
        """Start commands as the README has them, and give the process and a keyboard to type at.

        stderr comes with stdout, as on a terminal. What still runs at the end is ended.
        """
        keyboard, terminal = os.openpty()
        with open(keyboard, "w") as typed:
            process = subprocess.Popen(
                ["bash", "-e", "-o", "pipefail", "-c", self.localise(command)],
                env={**self.environment, **(environment or {})},
                cwd=self.home,
                stdin=terminal,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            os.close(terminal)
            with process:
                try:
                    yield process, typed
                finally:
                    process.terminate()

    def run(self, command: str) -> tuple[int, str]:
        """Run commands to their end and return the exit code and what they showed."""
        with self.started(command) as (process, _):
            shown, _ = process.communicate(timeout=TIMEOUT)
        return process.returncode, self.globalise(shown)

    def localise(self, text: str) -> str:
        """Return the README's text with the addresses of this stage."""
        for host, server in zip(HOSTS, self.servers, strict=True):
            text = text.replace(host, server.site.removeprefix("https://"))
        return text

    def globalise(self, text: str) -> str:
        """Return what a command showed with the README's addresses, and no secret in it."""
        for host, server in zip(HOSTS, self.servers, strict=True):
            here = server.site.removeprefix("https://")
            text = text.replace(here, host).replace(f"port {here.partition(':')[2]}", "port 443")
        text = text.replace(str(self.home), "~").replace(str(self._bin_directory), "/usr/bin")
        return _SECRET.sub(r"\1…", text)

    def _prepare(self, directory: Path) -> None:
        for made in (self.home, self._bin_directory):
            made.mkdir()
        ca_file = directory / "authorities.pem"
        ca_file.write_text("".join(Path(server.ca_file or "").read_text() for server in self.servers))
        (directory / "person.py").write_text(_PERSON.format(ca_file=str(ca_file)))
        path = [str(self._bin_directory), str(Path(sys.executable).parent), os.environ["PATH"]]
        aws = shutil.which("aws", path=os.pathsep.join(path)) or ""
        values = {
            "{python}": sys.executable,
            "{stage}": str(directory),
            "{ca_file}": shlex.quote(str(ca_file)),
            "{aws}": aws,
        }
        for name, script in _PROGRAMS.items():
            if name != "aws" or aws:
                _write_program(self._bin_directory / name, _replace_all(script, values))
        for name, script in _FILES.items():
            _write_program(self.home / name, script)
        trust = dict.fromkeys(("SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), str(ca_file))
        mine = {
            "HOME": str(self.home),
            "BROWSER": "firefox",
            "PATH": os.pathsep.join(path),
            "LC_ALL": "C.UTF-8",
        }
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("CELLS_", "AWS_", "XDG_", "SSH_", "SSL_", "PYTHON"))
        }
        self.environment = {**inherited, **trust, **mine}


def _replace_all(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(name, value)
    return text


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)

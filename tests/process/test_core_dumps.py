"""A process that holds tokens leaves no core dump; the program that takes its place may."""

from __future__ import annotations

import resource
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING

from sessions import store_session

from cells_loopback.process.core_dumps import forbid_core_dumps, restore_core_dumps

if TYPE_CHECKING:
    from pathlib import Path

    from cells_loopback.testing import CellsServer


def test_a_dump_is_forbidden_and_allowed_again() -> None:
    before = resource.getrlimit(resource.RLIMIT_CORE)
    soft = forbid_core_dumps()
    try:
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, before[1])
    finally:
        restore_core_dumps(soft)
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


def test_a_program_run_with_the_session_may_leave_one(server: CellsServer, tmp_path: Path) -> None:
    store_session(server, tmp_path / "config")
    ours = [sys.executable, "-m", "cells_loopback", "exec", "--config-dir", str(tmp_path / "config")]
    command = f"ulimit -S -c $(ulimit -H -c); ulimit -S -c; exec {shlex.join(ours)} -- sh -c 'ulimit -S -c'"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert len(set(done.stdout.split())) == 1, done.stdout + done.stderr
    assert len(done.stdout.split()) == 2, done.stderr

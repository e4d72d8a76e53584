"""The order of the house: what may import what, what is public, and what an import may cost."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cells_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cells_loopback"

# A module may import only modules above it, function-level imports included, so there can be no cycle.
# "cli.*" stands for the commands that have no line of their own; they know nothing of each other.
HOUSE = """
    errors secret clock events
    process process.core_dumps process.windows process.terminal process.termination
    process.thread_lock process.uninterrupted process.background process.watchdog

    protocol protocol.json_decoder protocol.site protocol.client protocol.pkce protocol.authorization
    protocol.tokens protocol.id_token

    store store.config_dir store.private_file store.lock store.keyring_store store.profile_document
    store.profiles store.pkce_memory store.snapshot store.preferences
    http http.trust http.answers http.transport http.endpoints http.discovery
    desktop desktop.browser desktop.ssh desktop.own_chromium desktop.notify
    loopback loopback.port_holder loopback.listener loopback.redirect loopback.pages
    loopback.callback_request loopback.callback_response loopback.connections loopback.callback

    integrations integrations.config_text integrations.config_json integrations.config_file
    integrations.expiration integrations.loop_tokens integrations.httpx integrations.aiohttp
    integrations.requests integrations.s3 integrations.s3_clients integrations.s3_environment
    early_browser early_credentials early_json

    session session.renewal_note session.renewal session.session session.forecast session.logout
    loopback_login loopback_login.identity loopback_login.standing_session loopback_login.lock
    loopback_login.options loopback_login.opening loopback_login.pasted loopback_login.code_exchange
    loopback_login.personal_token loopback_login.flow library
    keepalive keepalive.services keepalive.schedulers keepalive.wakeup keepalive.state
    keepalive.relogin keepalive.policy keepalive.keepalive
    doctor.finding doctor.store doctor.background doctor.desktop doctor.site doctor

    testing
    cli.console cli.arguments cli.narration cli cli.api cli.login cli.* cli.demo
    __main__ __init__
"""
ORDER = HOUSE.split()


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts), path


MODULES = dict(modules())
OURS = {name: path for name, path in MODULES.items() if name.partition(".")[0] != "testing"}
TESTING = {name: path for name, path in MODULES.items() if name not in OURS}


def place(name: str) -> int:
    """Return where a module stands in the order; it must have a place there, its own or a shared one."""
    first = name.partition(".")[0]
    shared = {"cli": "cli.*", "testing": "testing"}.get(first, name)
    assert name in ORDER or shared in ORDER, f"give {name} its place in the order above"
    return ORDER.index(name if name in ORDER else shared)


def imported_modules(path: Path) -> set[str]:
    """Return our modules that a file imports when it runs, at its top or inside a function."""
    return {found for node in _running_nodes(ast.parse(path.read_text())) for found in _imported(node)}


def _running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from _running_nodes(child)


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return
    for name in names:
        package, _, rest = name.partition(".")
        if package == "cells_loopback" and rest != "__version__":
            yield rest if rest in MODULES else rest.rpartition(".")[0] or "__init__"


@pytest.mark.parametrize("name", OURS)
def test_a_module_imports_only_what_stands_above_it(name: str) -> None:
    below = {found for found in imported_modules(OURS[name]) if place(found) >= place(name)}
    assert below == set()


@pytest.mark.parametrize("name", TESTING)
def test_the_embedded_server_shares_no_code_with_the_client_it_tests(name: str) -> None:
    outside = {found for found in imported_modules(TESTING[name]) if found not in TESTING}
    assert outside == set()


def test_nothing_imports_the_embedded_server_but_the_demo() -> None:
    importing = {name for name, path in OURS.items() if imported_modules(path) & TESTING.keys()}
    assert importing <= {"cli.demo"}


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_a_few_screens_and_named_for_what_it_holds(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 400
    assert MODULES[name].stem not in {"utils", "util", "helpers", "common", "misc", "constants", "types"}


def test_every_public_name_is_there_and_listed_in_order() -> None:
    public = getattr(cells_loopback, "__all__", [])
    assert list(public) == sorted(set(public))
    for name in public:
        assert getattr(cells_loopback, name) is not None
    assert set(public) <= set(dir(cells_loopback))
    with pytest.raises(AttributeError):
        cells_loopback.__getattr__("no_such_name")


def test_everything_public_says_what_it_is() -> None:
    undocumented = [
        name
        for name in getattr(cells_loopback, "__all__", [])
        if callable(value := getattr(cells_loopback, name)) and not value.__doc__
    ]
    assert undocumented == []


@pytest.mark.parametrize(
    "heavy", ["aiohttp", "httpx", "joserfc", "keyring", "cryptography", "asyncio", "argparse", "json"]
)
def test_importing_the_package_costs_nothing(heavy: str) -> None:
    assert heavy not in loaded_by("import cells_loopback")


def loaded_by(statement: str) -> list[str]:
    """Return the modules that a new interpreter has loaded after a statement, without site-packages' own."""
    code = f"import sys; {statement}; loaded = sorted(sys.modules); import json; print(json.dumps(loaded))"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    names: list[str] = json.loads(child.stdout)
    return names


@pytest.mark.parametrize(
    "script", sorted([*ROOT.glob("scripts/*"), ROOT / ".ci" / "run"]), ids=lambda path: path.name
)
def test_scripts_can_be_run_as_they_are(script: Path) -> None:
    if script.suffix or script.is_dir():  # a picture, data, the examples
        return
    assert os.access(script, os.X_OK)
    assert script.read_text().startswith("#!")


@pytest.mark.parametrize("place", [".venv", "elsewhere"])
def test_fix_mends_the_python_scripts_too_wherever_the_environment_is(tmp_path: Path, place: str) -> None:
    scripts, programs = tmp_path / "scripts", tmp_path / place / "bin"
    (scripts / "benchmarks").mkdir(parents=True)
    programs.mkdir(parents=True)
    shutil.copy2(ROOT / "scripts" / "fix", scripts)
    stand_ins = {scripts / "install": "exit 0", programs / "ruff": f'echo "$@" >>{tmp_path}/asked'}
    for path, command in {**stand_ins, scripts / "readme": "# python"}.items():
        path.write_text(f"#!/bin/sh {'python' if path.name == 'readme' else ''}\n{command}\n")
        path.chmod(0o700)
    environment = {**os.environ, "VENV": place if place == ".venv" else str(tmp_path / place)}
    subprocess.run([scripts / "fix"], env=environment, check=True)
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["check --fix . scripts/readme", "format . scripts/readme"]

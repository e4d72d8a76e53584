"""What is shipped: a wheel and an sdist, and what pip, pipx and uv make of them in an empty home."""

from __future__ import annotations

import ast
import email
import email.policy
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import tomlkit
from requires import lacks, require_program, thorough

from cells_loopback import __version__

if TYPE_CHECKING:
    from email.message import EmailMessage

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomlkit.parse((ROOT / "pyproject.toml").read_text()).unwrap()["project"]
NAME = f"cells_loopback-{__version__}"
MANUAL = "share/man/man1/cells-loopback.1"

# uv, which pipx uses too where it finds it, would trust its own list of authorities alone; older releases
# call it by the second name.
_SYSTEM_CERTIFICATES = {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}

# What is built once serves every test, and what is installed runs a login on the first port it may have.
pytestmark = pytest.mark.xdist_group("port 3000")


def run(*command: str | Path, **environment: str | Path) -> str:
    """Run a program and return what it printed; it must succeed."""
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **_SYSTEM_CERTIFICATES, **{name: str(at) for name, at in environment.items()}},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@dataclass(frozen=True)
class Built:
    """What ``python -m build`` made."""

    sdist: Path
    wheel: Path


def build(source: Path, target: Path) -> Built:
    """Build both from a source tree with the build backend of this environment."""
    for module in ("build", "hatchling"):
        if importlib.util.find_spec(module) is None:
            lacks(f"{module} is not installed")
    command = (sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel")
    run(*command, "--outdir", target, source, SOURCE_DATE_EPOCH="1750000000")
    return Built(target / f"{NAME}.tar.gz", target / f"{NAME}-py3-none-any.whl")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(ROOT, tmp_path_factory.mktemp("built"))


@pytest.fixture(scope="module")
def unpacked(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that the sdist holds, somewhere else."""
    directory = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(built.sdist) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(directory, filter="data")
        else:
            archive.extractall(directory)
    return directory / NAME


def wheel_names(built: Built) -> set[str]:
    with zipfile.ZipFile(built.wheel) as archive:
        return set(archive.namelist())


def metadata(built: Built) -> EmailMessage:
    with zipfile.ZipFile(built.wheel) as archive:
        text = archive.read(f"{NAME}.dist-info/METADATA").decode()
    return email.message_from_string(text, policy=email.policy.default)


# What is in them


def test_the_sdist_holds_every_file_of_the_repository(unpacked: Path) -> None:
    git = require_program("git")
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    tracked = run(git, "-C", ROOT, "ls-files", "-z").split("\0")
    present = {name for name in tracked if name and (ROOT / name).exists()}
    assert {name for name in present if not (unpacked / name).exists()} == set()
    assert os.access(unpacked / "scripts" / "test", os.X_OK)


def test_the_wheel_holds_the_package_and_its_manual_page_alone(built: Built) -> None:
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cells_loopback").rglob("*")
        if path.is_file() and path.suffix not in {".1", ".pyc"}
    }
    names = wheel_names(built)
    assert "cells_loopback/py.typed" in package
    assert package - names == set()
    about = {name for name in names if name.startswith(f"{NAME}.dist-info/")}
    assert names - package - about == {f"{NAME}.data/data/{MANUAL}"}


def test_builds_are_reproducible(built: Built, unpacked: Path, tmp_path: Path) -> None:
    again = build(unpacked, tmp_path)
    assert again.wheel.read_bytes() == built.wheel.read_bytes()
    assert again.sdist.read_bytes() == built.sdist.read_bytes()


def test_the_metadata_is_complete(built: Built) -> None:
    about = metadata(built)
    assert (about["Name"], about["Version"]) == ("cells-loopback", __version__)
    assert about["Requires-Python"] == ">=3.10"
    assert (about["License-Expression"], about["License-File"]) == ("MIT", "LICENSE")
    assert about["Description-Content-Type"] == "text/markdown"
    assert (ROOT / "README.md").read_text() in str(about.get_payload())
    assert about["Summary"]
    assert about["Author"]
    assert {"Provides-Extra: " + extra for extra in about.get_all("Provides-Extra", [])} == {
        "Provides-Extra: all",
        "Provides-Extra: keyring",
        "Provides-Extra: s3",
    }
    with zipfile.ZipFile(built.wheel) as archive:
        entry_points = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert entry_points.strip() == "[console_scripts]\ncells-loopback = cells_loopback.__main__:main"


def test_every_python_that_it_runs_on_is_named(built: Built) -> None:
    names = {name.rpartition(" ")[2] for name in metadata(built).get_all("Classifier", [])}
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in names


def test_what_is_imported_is_declared() -> None:
    declared = {requirement_name(text) for text in PROJECT["dependencies"]}
    declared |= {
        name for texts in PROJECT["optional-dependencies"].values() for name in map(requirement_name, texts)
    }
    declared.add("secretstorage")  # keyring's own means on Linux, used only where keyring is
    imported = {name for path in (ROOT / "cells_loopback").rglob("*.py") for name in imported_packages(path)}
    assert imported - set(sys.stdlib_module_names) - {"cells_loopback"} <= declared


def requirement_name(requirement: str) -> str:
    found = re.match(r"[a-z0-9-]+", requirement)
    assert found is not None, requirement
    return found[0]


def imported_packages(path: Path) -> set[str]:
    """Return the packages that a file imports when it runs, not what it imports for the type checker."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


# What installers make of it


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The package index answers."""
    target = tmp_path_factory.mktemp("index")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(target), "idna"]
    if subprocess.run(command, capture_output=True, timeout=120, check=False).returncode != 0:
        lacks("the package index cannot be reached")


@pytest.fixture(scope="module")
def environment(built: Built, index: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with the wheel, put there by pip; nothing was compiled."""
    directory = tmp_path_factory.mktemp("pip") / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", directory)
    pip_install(directory, str(built.wheel))
    return directory


def pip_install(environment: Path, *requirements: str) -> None:
    pip = (sys.executable, "-m", "pip", "--python", python_of(environment))
    run(*pip, "install", "--quiet", "--only-binary", ":all:", *requirements)


def python_of(environment: Path) -> Path:
    return environment / "bin" / "python"


def assert_works(command: Path) -> None:
    assert run(command, "--version") == f"cells-loopback {__version__}\n"
    assert "everything is cleaned up" in run(command, "demo", "--headless")


@thorough
def test_pip_installs_it(environment: Path) -> None:
    assert_works(environment / "bin" / "cells-loopback")
    assert (environment / MANUAL).is_file()


@pytest.mark.skipif("PIP_CONSTRAINT" in os.environ, reason="the README tells of today's libraries")
@thorough
def test_it_stays_as_small_as_the_readme_says(environment: Path) -> None:
    told = re.search(
        r"(\d+) libraries, (\d+) packages with what\s+those need, (\d+) MB", (ROOT / "README.md").read_text()
    )
    assert told is not None
    libraries, packages, megabytes = map(int, told.groups())
    site_packages = next(environment.glob("lib/python*/site-packages"))
    installed = list(importlib.metadata.distributions(path=[str(site_packages)]))
    size = sum(path.stat().st_size for path in site_packages.rglob("*") if path.is_file())
    assert libraries == len(PROJECT["dependencies"])
    assert packages == pytest.approx(len(installed) - 1, abs=2)  # Python 3.10 needs two more
    assert megabytes == pytest.approx(size / 1e6, rel=0.2)


@thorough
def test_every_extra_can_be_installed(environment: Path, built: Built) -> None:
    pip_install(environment, f"cells-loopback[all] @ {built.wheel.as_uri()}")
    run(python_of(environment), "-c", "import botocore, keyring")
    run(sys.executable, "-m", "pip", "--python", python_of(environment), "check")


@thorough
def test_pipx_installs_it(built: Built, index: None, tmp_path: Path) -> None:
    if importlib.util.find_spec("pipx") is None:
        lacks("pipx is not installed")
    places = {"PIPX_HOME": "home", "PIPX_BIN_DIR": "bin", "PIPX_MAN_DIR": "man"}
    pipx = (sys.executable, "-m", "pipx", "install", "--python", sys.executable)
    run(*pipx, built.wheel, **{name: tmp_path / place for name, place in places.items()})
    assert_works(tmp_path / "bin" / "cells-loopback")
    assert (tmp_path / "man" / "man1" / "cells-loopback.1").is_file()


@thorough
def test_uv_installs_it(built: Built, index: None, tmp_path: Path) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if uv is None:
        lacks("uv is not installed")
    places = {"UV_TOOL_DIR": tmp_path / "tools", "UV_TOOL_BIN_DIR": tmp_path / "bin"}
    command = (uv, "tool", "install", "--no-build", "--python", sys.executable, built.wheel)
    run(*command, **places)
    assert_works(tmp_path / "bin" / "cells-loopback")


@thorough
def test_a_checkout_needs_python_alone(unpacked: Path, index: None, tmp_path: Path) -> None:
    shown = run(unpacked / "scripts" / "demo", "--headless", PYTHON=sys.executable, VENV=tmp_path / "venv")
    assert "everything is cleaned up" in shown

"""The README tells the truth: its commands run, its tables are the program's, its links lead somewhere."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
from inspect import getmembers, isclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest
from examples import PROFILE
from own_network import network_with_free_ports
from readme_stage import Stage, blocks, read
from requires import lacks

from cells_loopback import errors, events
from cells_loopback.cli import COMMANDS, make_overview, make_parser, split_command
from cells_loopback.protocol.client import CELLS_CLIENT, CELLS_SYNC
from cells_loopback.store.preferences import LOGIN_OPTIONS
from cells_loopback.store.profile_document import encode_profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from readme_stage import Block

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cells_loopback"
TEXT = read()
BLOCKS = list(blocks(TEXT))
PROSE = re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE)
QUOTED = re.findall(r"`([^`\n]+)`", PROSE)

# tests/test_packaging.py runs these, in an empty home; the last one is what runs this file.
RUN_ELSEWHERE = ("pipx install .", "scripts/demo", "scripts/test")
TOOLS = {"aws", "curl", "http", "python3", "rclone", "s3cmd"}

pytestmark = [pytest.mark.xdist_group("port 3000")]


@pytest.fixture(scope="module")
def network() -> Iterator[None]:
    with network_with_free_ports():
        yield


@pytest.fixture(scope="module")
def stage(network: None) -> Iterator[Stage]:
    """A person's machine, logged in to files.example.com."""
    with Stage() as stage:
        code, shown = stage.run("cells-loopback login files.example.com")
        assert code == 0, shown
        yield stage


def section(title: str) -> str:
    """Return the text under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(title)}$(.*?)(?=^#+ |\Z)", PROSE, re.DOTALL | re.MULTILINE)
    assert found is not None, title
    return found[1]


def rows(title: str) -> dict[str, str]:
    """Return the tables under a heading: what stands in the second column, by the first."""
    cells = re.findall(r"^\| (.*?) \| (.*?)(?: \||$)", section(title), re.MULTILINE)
    return {first: second for first, second in cells if not first.startswith("---")}


def names(text: str) -> list[str]:
    """Return what stands in backquotes."""
    return re.findall(r"`([^`]+)`", text)


# What it shows


def test_the_help_and_the_transcripts_are_what_the_program_shows_today() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "readme"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# What it tells to type


def script(block: Block) -> list[str]:
    """Return the lines of a block that are run here."""
    return [line for line in block.commands if not line.startswith(RUN_ELSEWHERE)]


RECIPES = {
    script(block)[0]: block
    for block in BLOCKS
    if block.language == "sh" and script(block) and not {"--serve", "--paste"} & set(block.text.split())
}


def require_tools(stage: Stage, commands: str) -> None:
    for tool in sorted(TOOLS & set(re.findall(r"[\w-]+", commands))):
        if shutil.which(tool, path=stage.environment["PATH"]) is None:
            lacks(f"{tool} is not installed")


@pytest.mark.parametrize("block", RECIPES.values(), ids=RECIPES)
def test_a_recipe_works_as_it_is_written(block: Block, stage: Stage) -> None:
    commands = "\n".join(script(block))
    require_tools(stage, commands)
    code, shown = stage.run(commands)
    assert code == 0, shown


def test_a_login_by_copy_and_paste_works_as_it_is_written(stage: Stage, tmp_path: Path) -> None:
    command = next(line for block in BLOCKS for line in block.commands if line.endswith("--paste"))
    nobody_yet = {"CELLS_LOOPBACK_CONFIG_DIR": str(tmp_path / "config")}
    with stage.started(command, environment=nobody_yet) as (login, keyboard):
        assert login.stdout is not None
        address = next(line for line in login.stdout if line.startswith("https://")).strip()
        page = stage.servers[0].sign_in(address)
        keyboard.write(parse_qs(urlsplit(page.url).query)["code"][0] + "\n")
        keyboard.flush()
        shown, _ = login.communicate(timeout=60)
    assert login.returncode == 0, shown
    assert "logged in to" in shown


def test_what_runs_elsewhere_is_there() -> None:
    for command in RUN_ELSEWHERE:
        assert any(line.startswith(command) for block in BLOCKS for line in block.commands)
    assert 'unpacked / "scripts" / "demo"' in (ROOT / "tests" / "test_packaging.py").read_text()


def commands_of_ours() -> set[str]:
    """Return every call of the program in the README, blocks and prose, up to where the shell takes over."""
    lines = [line for block in BLOCKS for line in block.commands] + QUOTED
    calls = {call for line in lines for call in re.findall(r"\bcells-loopback ([^|>;#`]+)", line)}
    return {without_its_end(call) for call in calls if not call.startswith("COMMAND")}


def without_its_end(call: str) -> str:
    """Return a call without the bracket or the quotation mark of a substitution around it."""
    while call.count("(") < call.count(")") or call.count('"') % 2:
        call = call[: max(call.rfind(")"), call.rfind('"'))]
    return call.strip()


@pytest.mark.parametrize("call", sorted(commands_of_ours()))
def test_every_command_line_is_understood(call: str) -> None:
    command, rest = split_command(shlex.split(call))
    assert command in COMMANDS
    make_parser(command).parse_args(rest)


def test_every_option_that_is_spoken_of_exists() -> None:
    parsers: list[Any] = [make_overview(), *map(make_parser, COMMANDS)]
    options = {option for parser in parsers for option in parser._option_string_actions}
    ours = {"--endpoint-url", "--user"}  # of aws and docker
    spoken_of = {word for text in QUOTED for word in text.split() if re.fullmatch(r"--[a-z-]+", word)}
    assert spoken_of - options <= ours


# What it tells to write in Python


PYTHON = [block for block in BLOCKS if block.language == "python"]
DRIVER = """\
import ast, asyncio, inspect, sys
import aiohttp, httpx, requests
url = sys.argv[1] + "/a/frontend/state"
code = compile(sys.stdin.read(), "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
result = eval(code)
if inspect.iscoroutine(result):
    asyncio.run(result)
"""


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.text.splitlines()[0])
def test_a_program_runs_as_it_is_written(block: Block, stage: Stage) -> None:
    command = [sys.executable, "-c", DRIVER, stage.servers[0].site]
    done = subprocess.run(
        command,
        input=stage.localise(block.text),
        env=stage.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# Its tables


def test_the_events_are_the_packages() -> None:
    start = PROSE.index("`authorization_url` (")
    told = names(PROSE[start : PROSE.index("SIGTERM", start)])
    kinds = [kind for _, kind in getmembers(events, isclass) if issubclass(kind, events.Event)]
    real: set[str] = set()
    for kind in kinds:
        if kind is not events.Event:
            real |= {kind.event, *kind.__dataclass_fields__}
    assert set(told) == real - {"event", "time"}


def test_the_exit_codes_are_the_programs() -> None:
    codes = {int(code) for code in rows("Exit codes") if code.isdigit()}
    kinds = [kind for _, kind in getmembers(errors, isclass) if issubclass(kind, errors.CellsLoopbackError)]
    assert codes == {0, 130, *(kind.exit_code for kind in kinds)}


def test_the_variables_are_those_that_the_program_reads() -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    told = {name for cell in rows("Commands") for name in names(cell)}
    ours = set(re.findall(r"\bCELLS_LOOPBACK_[A-Z_]+[A-Z]\b", source))
    among_ourselves = {f"CELLS_LOOPBACK_{name}" for name in ("BODY", "SANDBOX", "TASK", "TITLE")}
    assert ours - among_ourselves == {name for name in told if name.startswith("CELLS_LOOPBACK_")}


def test_the_messages_are_the_programs() -> None:
    sentences = [sentence for path in PACKAGE.rglob("*.py") for sentence in texts(path)]
    for cell in rows("Troubleshooting by message"):
        for message in names(cell):
            parts = [part.strip() for part in message.split("…") if part.strip()]
            for part in parts:
                assert any(part in sentence for sentence in sentences), message
    ports = {
        port for client in (CELLS_CLIENT, CELLS_SYNC) for uri in client.redirect_uris for port in uri.ports
    }
    assert f"all {len(ports)} registered ports" in PROSE


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a source file, those with values in them in one piece."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "…".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_members_of_a_profile_are_those_that_are_written() -> None:
    table = {names(first)[0]: names(second) for first, second in rows("The files").items() if names(first)}
    document = encode_profile(PROFILE)
    assert table.keys() == document.keys()
    for name in ("client", "token", "settings", "renewals"):
        assert [*table[name]] == sorted(document[name], key=table[name].index), name
    assert set(names(section("The files").partition("`[login]`")[2].partition("\n* ")[0])) == set(
        LOGIN_OPTIONS
    )


# Its links


def test_every_link_leads_somewhere() -> None:
    anchors = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PROSE, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", PROSE):
        if target.startswith("#"):
            assert target[1:] in anchors
        elif "://" not in target:
            assert (ROOT / target).exists(), target


def test_every_file_that_is_spoken_of_is_there() -> None:
    files = {
        word
        for text in QUOTED
        for word in text.split()
        if re.fullmatch(r"[\w/]+\.(py|sh|toml)|scripts/\w+", word)
    }
    homes = (ROOT, PACKAGE)
    written = {"config.toml", "nightly-report.sh"}  # by the person
    missing = {name for name in files - written if not any((home / name).exists() for home in homes)}
    assert missing - {"cli/NAME.py", "cells_loopback/cli/NAME.py"} == set()


def test_every_test_that_is_spoken_of_is_there() -> None:
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    for name in QUOTED:
        if re.fullmatch(r"test_\w+", name):
            assert f"def {name}(" in tests

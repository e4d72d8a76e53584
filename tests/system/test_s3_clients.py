"""Real S3 clients, set up by the program, against the gateway of the embedded server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
import urllib.request
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
import pytest
from program import Program
from requires import THOROUGH, lacks, require_program, thorough
from signed_in import log_in

from cells_loopback import Session
from cells_loopback.testing import Behaviour, CellsServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1024 * 1024
TOKEN_LIFE = 3.0
TRANSFER = 20 if THOROUGH else 8
"""Seconds that a transfer lasts which outlasts its token."""


class Desk:
    """One person's machine: the program and S3 clients, run in the same home."""

    def __init__(self, home: Path, server: CellsServer) -> None:
        self.home = home
        self.server = server
        self.program = Program(home)

    def run(self, command: str, *, environment: dict[str, str] | None = None, ends_with: int = 0) -> str:
        """Run a client and return what it printed; what a failure printed on stderr counts too."""
        name, *arguments = shlex.split(command)
        done = subprocess.run(
            [require_program(name), *arguments],
            env={**self.program.environment, **(environment or {})},
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 + 2 * TRANSFER,
            check=False,
        )
        assert done.returncode == ends_with, done.stdout + done.stderr
        return done.stdout + done.stderr * bool(ends_with)

    def run_in_session(self, command: str) -> str:
        """Run a client through ``exec``."""
        name, *arguments = shlex.split(command)
        return self.program.output("exec", "--", require_program(name), *arguments)

    def client(self) -> Any:
        """Return boto3's client, with the session's refreshable credentials."""
        session = Session.load("desk", config_dir=str(self.program.config_dir))
        core = botocore.session.Session()
        provider = SimpleNamespace(load_credentials=session.s3_credentials)
        core.register_component("credential_provider", provider)
        return boto3.Session(botocore_session=core).client(
            "s3", endpoint_url=session.site, region_name="us-east-1", verify=self.server.ca_file
        )

    def content(self, key: str) -> bytes:
        """Return what the gateway has under a key."""
        client = self.client()
        try:
            content: bytes = client.get_object(Bucket="io", Key=key)["Body"].read()
        finally:
            client.close()
        return content

    def make_file(self, name: str, size: int) -> bytes:
        content = os.urandom(size)
        path = self.home / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        # S3 tells times in whole seconds: aws would upload again what was made in the second of its upload.
        os.utime(path, (time.time() - 60,) * 2)
        return content


@pytest.fixture
def desk(tmp_path: Path, server: CellsServer) -> Desk:
    desk = Desk(tmp_path, server)
    log_in(desk.program, server, "desk")
    return desk


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[Desk]:
    with CellsServer(behaviour=Behaviour(access_token_lifetime=TOKEN_LIFE)) as server:
        desk = Desk(tmp_path, server)
        log_in(desk.program, server, "desk")
        yield desk


def add_to_profile(desk: Desk, *lines: str) -> None:
    """Add settings of the person's own to the s3 block, which the program leaves alone."""
    path = desk.home / ".aws" / "config"
    path.write_text(path.read_text() + "".join(f"  {line}\n" for line in lines))
    desk.program.output("s3", "setup", "aws", "--write")
    assert all(line in path.read_text() for line in lines)


def test_aws_lists_copies_synchronizes_and_removes(desk: Desk) -> None:
    desk.program.output("s3", "setup", "aws", "--write")
    content = desk.make_file("tree/large", 9 * MIB)
    desk.make_file("tree/small é.txt", 5)
    aws = "aws --profile desk s3"
    desk.run(f"{aws} sync --no-progress tree s3://io/tree")
    listing = desk.run(f"{aws} ls s3://io/tree/")
    assert f"{9 * MIB} large" in listing
    assert "5 small é.txt" in listing
    assert desk.run(f"{aws} sync --no-progress tree s3://io/tree") == ""
    desk.run(f"{aws} cp --no-progress s3://io/tree/large back")
    assert (desk.home / "back").read_bytes() == content
    link = desk.run(f"{aws} presign s3://io/tree/large").strip()
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert answer.read() == content
    desk.run(f"{aws} rm --recursive s3://io/tree")
    desk.run(f"{aws} ls s3://io/tree/", ends_with=1)


@thorough
def test_aws_works_in_the_environment_of_exec_beside_a_setup_for_aws(desk: Desk) -> None:
    (desk.home / ".aws").mkdir()
    (desk.home / ".aws" / "config").write_text("[default]\nregion = eu-west-1\n")
    desk.program.environment |= {"AWS_PROFILE": "gone", "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z"}
    content = desk.make_file("file", 100)
    desk.run_in_session(f"aws s3 cp --no-progress {desk.home}/file s3://io/file")
    assert desk.content("file") == content


@thorough
def test_aws_and_rclone_trust_an_authority_of_ones_own(tmp_path: Path) -> None:
    with CellsServer(tls=True) as server:
        assert server.ca_file is not None
        desk = Desk(tmp_path, server)
        log_in(desk.program, server, "desk", "--ca-bundle", server.ca_file)
        content = desk.make_file("file", 9 * MIB)
        desk.program.output("s3", "setup", "aws", "--write")
        # Checksums in trailers, which the profile switches off for Cells' sake.
        trailers = {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_supported"}
        for number, environment in enumerate(({}, trailers)):
            aws = "aws --profile desk s3 cp --no-progress"
            desk.run(f"{aws} file s3://io/{number}", environment=environment)
            assert desk.content(str(number)) == content
        desk.program.output("s3", "setup", "rclone", "--write")
        listing = desk.run(f"rclone --ca-cert {server.ca_file} lsf desk:io")
        assert listing.split() == ["0", "1"]


def test_rclone_copies_checks_and_deletes(desk: Desk) -> None:
    desk.program.output("s3", "setup", "rclone", "--write")
    content = desk.make_file("tree/large", 6 * MIB)
    desk.make_file("tree/small é.txt", 5)
    desk.run("rclone copy --s3-upload-cutoff 5M --s3-chunk-size 5M tree desk:io/tree")
    assert desk.run("rclone lsf desk:io/tree").splitlines() == ["large", "small é.txt"]
    desk.run("rclone check tree desk:io/tree")
    desk.run("rclone copy desk:io/tree back")
    assert (desk.home / "back" / "large").read_bytes() == content
    # The time of a file is kept, so that nothing is copied twice.
    before = desk.server.count("s3")
    desk.run("rclone sync tree desk:io/tree")
    assert not [one for one in desk.server.requests[before:] if one.kind == "s3" and one.method == "PUT"]
    desk.run("rclone purge desk:io/tree")
    assert desk.run("rclone lsf desk:io") == ""


@thorough
def test_s3cmd_puts_lists_and_gets_in_the_environment_of_exec(desk: Desk) -> None:
    desk.program.output("s3", "setup", "s3cmd", "--write")
    content = desk.make_file("file", 16 * MIB)
    desk.run_in_session(f"s3cmd put {desk.home}/file s3://io/deep/file")
    assert f"{16 * MIB}  s3://io/deep/file" in desk.run_in_session("s3cmd ls s3://io/deep/")
    desk.run_in_session(f"s3cmd get s3://io/deep/file {desk.home}/back")
    assert (desk.home / "back").read_bytes() == content
    assert "s3://io/deep/file" in desk.run_in_session("s3cmd info s3://io/deep/file")
    desk.run_in_session("s3cmd del --recursive --force s3://io/deep")
    assert desk.run_in_session("s3cmd ls s3://io/") == ""


@thorough
def test_mc_copies_mirrors_and_removes_with_the_token_of_the_moment(desk: Desk) -> None:
    require_mc()
    desk.program.output("s3", "setup", "mc", "--write")
    content = desk.make_file("here/file", 40 * MIB)  # mc sends parts of 16 MiB
    desk.make_file("here/deep/other", 100)
    desk.run("mc --quiet cp here/file desk/data/file")
    assert desk.content("file") == content
    desk.run("mc --quiet cp desk/data/file back")
    assert (desk.home / "back").read_bytes() == content
    desk.run("mc --quiet mirror here desk/data/mirrored")
    assert [line.split()[-1] for line in desk.run("mc ls --recursive desk/data/mirrored").splitlines()] == [
        "deep/other",
        "file",
    ]
    desk.run("mc --quiet rm --recursive --force desk/data")
    assert desk.run("mc ls --recursive desk/data") == ""


@thorough
def test_mc_takes_the_alias_from_its_environment_as_its_setup_recommends(desk: Desk) -> None:
    require_mc()
    notes = desk.program.run("s3", "setup", "mc", "-p", "desk")
    assert notes.returncode == 0
    [recipe] = re.findall(r"cells-loopback (exec .*)", notes.stderr)
    desk.client().put_object(Bucket="io", Key="file", Body=b"x")
    assert "file" in desk.program.output(*shlex.split(recipe))


def require_mc() -> None:
    """Skip without MinIO's client; Midnight Commander has a command of the same name."""
    mc = require_program("mc")
    version = subprocess.run([mc, "--version"], capture_output=True, text=True, check=False).stdout
    if "MinIO" not in version:
        lacks("mc is Midnight Commander here, not MinIO's client")


@thorough
def test_a_boto3_client_outlives_its_token(short_lived: Desk) -> None:
    client = short_lived.client()
    deadline = time.monotonic() + 2 * TOKEN_LIFE
    puts = 0
    while time.monotonic() < deadline:
        client.put_object(Bucket="io", Key=str(puts), Body=b"x")
        puts += 1
    client.close()
    assert len(set(issued_keys(short_lived.server))) >= 3
    assert puts > 10
    assert short_lived.server.count("s3", 403) == 0


def issued_keys(server: CellsServer) -> list[str]:
    """Return the access keys that have signed requests, in their order."""
    signed = [one.authorization for one in server.requests if one.kind == "s3"]
    return [
        header.partition("Credential=")[2].partition("/")[0] for header in signed if "Credential=" in header
    ]


@thorough
def test_a_transfer_by_aws_outlasts_the_token(short_lived: Desk) -> None:
    desk = short_lived
    desk.program.output("s3", "setup", "aws", "--write")
    add_to_profile(
        desk,
        "max_bandwidth = 2500KB/s",
        "max_concurrent_requests = 1",
        "multipart_threshold = 5MB",
        "multipart_chunksize = 5MB",
    )
    content = desk.make_file("file", int(2.5 * MIB * TRANSFER))
    started = time.monotonic()
    desk.run("aws --profile desk s3 cp --no-progress file s3://io/file")
    assert_outlasted(desk, started)
    assert desk.content("file") == content


@thorough
def test_a_transfer_by_rclone_outlasts_the_token(short_lived: Desk) -> None:
    desk = short_lived
    desk.program.output("s3", "setup", "rclone", "--write")
    content = desk.make_file("file", int(2.5 * MIB * TRANSFER))
    limits = "--bwlimit 2.5M --s3-upload-cutoff 5M --s3-chunk-size 5M --s3-upload-concurrency 1"
    started = time.monotonic()
    desk.run(f"rclone copy {limits} file desk:io")
    assert_outlasted(desk, started)
    assert desk.content("file") == content


def assert_outlasted(desk: Desk, started: float) -> None:
    lasted = time.monotonic() - started
    assert lasted > 2 * TOKEN_LIFE
    # Not one for each life: on a busy machine nothing happens in many of them.
    assert desk.server.count("refresh") >= 2
    assert desk.server.count("s3", 403) == 0


@thorough
def test_aws_tells_in_our_words_that_nobody_is_logged_in(desk: Desk) -> None:
    desk.program.output("s3", "setup", "aws", "--write")
    desk.program.output("logout")
    assert "cells-loopback login" in desk.run("aws --profile desk s3 ls", ends_with=255)

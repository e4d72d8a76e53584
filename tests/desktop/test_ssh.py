"""The line that somebody types on the machine where the browser is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cells_loopback.desktop.ssh import ssh_forward_command


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        pytest.param(
            {"SSH_CONNECTION": "192.0.2.1 50000 198.51.100.7 22"},
            "ssh -L 3000:localhost:3000 alice@198.51.100.7",
            id="the address the session came in by",
        ),
        pytest.param(
            {"SSH_CONNECTION": "192.0.2.1 50000 198.51.100.7 2222"},
            "ssh -p 2222 -L 3000:localhost:3000 alice@198.51.100.7",
            id="another port",
        ),
        pytest.param(
            {"SSH_CONNECTION": "2001:db8::1 50000 2001:db8::2 22"},
            "ssh -L 3000:localhost:3000 alice@2001:db8::2",
            id="IPv6",
        ),
        pytest.param(
            {"SSH_CONNECTION": "::ffff:192.0.2.1 50000 ::ffff:192.0.2.2 22"},
            "ssh -L 3000:localhost:3000 alice@192.0.2.2",
            id="IPv4 in IPv6",
        ),
        pytest.param(
            {"SSH_CONNECTION": "127.0.0.1 50000 127.0.0.1 22"},
            "ssh -L 3000:localhost:3000 alice@build-7",
            id="through a tunnel",
        ),
        pytest.param(
            {"SSH_CONNECTION": "fe80::1%eth0 50000 fe80::2%eth0 22"},
            "ssh -L 3000:localhost:3000 alice@build-7",
            id="link-local",
        ),
        pytest.param({}, "ssh -L 3000:localhost:3000 alice@build-7", id="unknown"),
        pytest.param({"SSH_CONNECTION": "UNKNOWN"}, "ssh -L 3000:localhost:3000 alice@build-7", id="odd"),
    ],
)
def test_the_line_to_type_on_the_other_machine(environ: dict[str, str], line: str) -> None:
    assert ssh_forward_command(3000, environ, "build-7", "alice") == line


def test_the_line_can_be_typed_as_it_is_whatever_the_user_is_called() -> None:
    line = ssh_forward_command(3636, {}, "build-7", "CORP\\alice")
    assert line == "ssh -L 3636:localhost:3636 'CORP\\alice@build-7'"
    assert ssh_forward_command(3636, {}, "build-7", "").endswith(" build-7")


@given(st.text(min_size=1), st.text())
def test_the_line_is_one_command_of_a_shell(hostname: str, user: str) -> None:
    from shlex import split

    assert len(split(ssh_forward_command(3000, {}, hostname, user))) == 4

from __future__ import annotations

import configparser
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cells_loopback.integrations.config_text import (
    merge_flat,
    merge_section,
    read_flat,
    read_section,
    render_section,
)

SETTINGS = {
    "region": "us-east-1",
    "endpoint_url": "http://localhost:8080",
    "s3": {"addressing_style": "path", "signature_version": "s3v4"},
}
OURS = """\
[profile ours]
region = us-east-1
endpoint_url = http://localhost:8080
s3 =
  addressing_style = path
  signature_version = s3v4
"""


def merge(text: str) -> str:
    return merge_section(
        text, SETTINGS, header="profile ours", is_header="profile ours".__eq__, nested=True, comments=("why",)
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", OURS),
        ("[default]\na = b\n", "[default]\na = b\n\n" + OURS),
        ("[default]\na = b\n\n", "[default]\na = b\n\n" + OURS),
        ("[default]\na = b", "[default]\na = b\n\n" + OURS),
        ("# only a comment", "# only a comment\n\n" + OURS),
        ("\ufeff[default]\r\na = b\r\n", "\ufeff[default]\r\na = b\r\n\r\n" + OURS.replace("\n", "\r\n")),
        ("[default]\ra = b", "[default]\ra = b\r\r" + OURS.replace("\n", "\r")),
    ],
    ids=["empty", "appended", "blank line", "no last newline", "comment", "crlf and bom", "cr"],
)
def test_a_new_section_is_put_at_the_end(before: str, after: str) -> None:
    newline = "\r\n" if "\r\n" in before else "\r" if "\r" in before else "\n"
    header = f"[profile ours]{newline}"
    assert merge(before) == after.replace(header, f"{header}# why{newline}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (OURS, OURS),
        (OURS.replace("us-east-1", "eu-west-1"), OURS),
        ("[profile ours]\n", OURS),
        ("[profile ours]", OURS),
        (
            "[profile ours]\n# mine\noutput=json\nREGION=eu\n\n[x]\na = b\n",
            "[profile ours]\n# mine\noutput=json\nREGION=us-east-1\n"
            + OURS.partition("us-east-1\n")[2]
            + "\n[x]\na = b\n",
        ),
        (
            OURS.replace(
                "  addressing_style = path\n", "    max_queue_size = 9\n    addressing_style=auto\n"
            ),
            OURS.replace(
                "  addressing_style = path\n", "    max_queue_size = 9\n    addressing_style=path\n"
            ),
        ),
        (
            OURS.replace("  signature_version = s3v4\n", ""),
            OURS,
        ),
        (OURS.replace("region = us-east-1\n", "region =\n  eu\n# mine\n  west\n"), None),
        (OURS.replace("s3 =", "s3 = odd"), OURS),
        (OURS.replace("  signature_version = s3v4\n", "# c\n  signature_version = s3\n"), None),
        (OURS.removesuffix("\n"), OURS.removesuffix("\n")),
        (OURS.replace("s3v4\n", "s3"), OURS.removesuffix("\n")),
        ("[profile ours]\n  region = eu\n", None),
        ("[profile ours]\nregion: eu\n", "[profile ours]\nregion: us-east-1\n" + OURS.partition("-1\n")[2]),
        ("[profile ours]\nregion=a\n[profile ours]\nregion=b\n", None),
    ],
)
def test_a_section_that_is_there_gets_our_values_and_keeps_the_rest(before: str, after: str | None) -> None:
    merged = merge(before)
    if after is not None:
        assert merged == after
    assert merge(merged) == merged
    parser = configparser.RawConfigParser(strict=False)
    parser.read_string(merged)
    section = parser["profile ours"]
    assert section["region"] == "us-east-1"
    assert section["endpoint_url"] == "http://localhost:8080"
    assert "addressing_style = path" in section["s3"].replace("=path", " = path")
    assert "signature_version = s3v4" in section["s3"]
    for line in before.splitlines():
        assert not line.startswith(("#", "output")) or line in merged.splitlines()


HEADERS = ["[profile ours]", "[profile other]", "[default]", "[ profile ours ]"]
LINES = [
    *HEADERS,
    "region = us-east-1",
    "region=eu",
    "s3 =",
    "  addressing_style = auto",
    "\tmax_concurrent_requests = 5",
    "output = json",
    "  output = text",
    "    region = deep",
    "# a comment",
    "; another",
    "",
    "   ",
    "nonsense",
    "endpoint_url : http://elsewhere",
    "é = \udcff",
]
ENDINGS = ["\n", "\n", "\r\n"]


@st.composite
def texts(draw: st.DrawFn) -> str:
    lines = draw(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(ENDINGS)), max_size=12))
    text = draw(st.sampled_from(["", "\ufeff"])) + "".join(line + ending for line, ending in lines)
    return text if draw(st.booleans()) else text.rstrip("\r\n")


def lines_not_ours(lines: list[str]) -> list[str]:
    """Return what must survive in our section: a line deeper than the key of ours before it belongs to it."""
    kept = []
    owner = ""
    for line in lines:
        is_content = line.strip() and not line.lstrip().startswith(("#", ";"))
        continues = is_content and owner and depth(line) > depth(owner)
        if is_content and not continues:
            owner = line if re.search("[=:]", line) and not line.startswith("[") else ""
        is_ours = re.match(r"\s*(region|endpoint_url|s3|addressing_style)", line)
        if not is_ours and not (continues and re.match(r"\s*(region|endpoint_url)", owner)):
            kept.append(line)
    return kept


def depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def is_ours(header: str) -> bool:
    return header.split() == ["profile", "ours"]


@settings(deadline=None)  # the machine may be busy
@given(texts())
def test_merging_keeps_every_byte_that_is_not_ours_and_settles_at_once(text: str) -> None:
    def merged(before: str) -> str:
        return merge_section(before, SETTINGS, header="profile ours", is_header=is_ours, nested=True)

    after = merged(text)
    assert merged(after) == after
    assert after.startswith("\ufeff") == text.startswith("\ufeff")
    spans = [
        match.span() for match in re.finditer(r"(?m)^\ufeff?\[[^\]]*\].*\n?(?:(?!\[).*(?:\n|\Z))*", text)
    ]
    mine = [span for span in spans if is_ours(re.search(r"\[(.*)\]", text[slice(*span)])[1])]  # type: ignore[index]
    if not mine:
        assert after.startswith(text)
        return
    start, end = mine[-1]
    assert after.startswith(text[:start])
    assert after.endswith(text[end:])
    kept = lines_not_ours(re.split(r"\r?\n", text[start:end]))
    rest = iter(re.split(r"\r?\n", after[start : len(after) - len(text[end:])]))
    assert all(line in rest for line in kept if line)


def read_as_aws(text: str) -> dict[str, dict[str, str]] | None:
    """Return what botocore's parser reads, None where it stops at the file."""
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(text.removeprefix("\ufeff"))
    except configparser.Error:
        return None
    return {name: dict(parser[name]) for name in parser.sections()}


INDENTED = {
    "an indented section": "[profile ours]\n    output = json\n    region = eu-west-1\n",
    "our key first": "[profile ours]\n    region = eu-west-1\n    output = json\n    cli_pager =\n",
    "an empty line within": "[profile ours]\ns3 =\n  a = 20\n\n  addressing_style = virtual\noutput = json\n",
    "a comment within": "[profile ours]\ns3 =\n  a = 20\n  # why\n  addressing_style = virtual\n",
}


@pytest.mark.parametrize("text", INDENTED.values(), ids=INDENTED)
def test_an_indented_file_stays_readable(text: str) -> None:
    check_as_aws(text)


@settings(deadline=None)  # the machine may be busy
@given(texts())
def test_aws_reads_ours_and_everything_else_as_before(text: str) -> None:
    check_as_aws(text)


def check_as_aws(text: str) -> None:
    before = read_as_aws(text)
    if before is None:
        return
    merged = merge_section(text, SETTINGS, header="profile ours", is_header=is_ours, nested=True)
    after = read_as_aws(merged)
    assert after is not None
    mine = [name for name in after if is_ours(name)][-1]
    assert after[mine]["region"] == "us-east-1"
    assert re.findall("addressing_style *= *(.*)", after[mine]["s3"]) == ["path"]
    for name, values in before.items():
        kept = {key: value for key, value in values.items() if name != mine or key not in SETTINGS}
        assert kept.items() <= after[name].items()


@settings(deadline=None)  # the machine may be busy
@given(texts())
def test_what_is_merged_is_read_again(text: str) -> None:
    merged = merge_section(text, {"region": "x"}, header="new", is_header="new".__eq__, nested=False)
    assert read_section(merged, "new".__eq__) == {"region": "x"}
    flat = merge_flat(text, {"host_base": "x:1", "access_key": ""}, header="default")
    assert {"host_base": "x:1", "access_key": ""}.items() <= read_flat(flat).items()
    assert merge_flat(flat, {"host_base": "x:1", "access_key": ""}, header="default") == flat


def test_a_section_that_is_not_there_has_no_settings() -> None:
    assert read_section("[a]\nb = c\n", "x".__eq__) is None
    assert read_section("", "x".__eq__) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[default]\n# why\nhost_base = x\nuse_https = True\n"),
        ("\n", "\n[default]\n# why\nhost_base = x\nuse_https = True\n"),
        ("# c\n[default]\n", "# c\n[default]\nhost_base = x\nuse_https = True\n"),
        ("host_base = y\nprogress = no", "host_base = x\nprogress = no\nuse_https = True\n"),
        ("[default]\r\nuse_https = False\r\n", "[default]\r\nuse_https = True\r\nhost_base = x\r\n"),
        ("  host_base = y\n", "  host_base = x\nuse_https = True\n"),
        ("# c\n", "host_base = x\nuse_https = True\n# c\n"),
    ],
)
def test_a_file_without_sections_gets_our_values_and_keeps_the_rest(before: str, after: str) -> None:
    settings = {"host_base": "x", "use_https": "True"}
    assert merge_flat(before, settings, header="default", comments=("why",)) == after
    assert merge_flat(after, settings, header="default", comments=("why",)) == after


def test_an_empty_value_is_written_without_a_space_behind_it() -> None:
    assert merge_flat("access_key = OLD\n", {"access_key": ""}, header="default") == "access_key =\n"
    assert merge_flat("access_key =\n", {"access_key": "NEW"}, header="default") == "access_key = NEW\n"
    assert render_section("a", {"b": ""}) == "[a]\nb =\n"

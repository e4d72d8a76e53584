"""The environment in which any S3 client finds the session, for ``exec`` and ``s3 env``."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Literal

from cells_loopback.errors import StoreError
from cells_loopback.integrations.config_file import read_text
from cells_loopback.integrations.config_text import read_section
from cells_loopback.integrations.s3 import REGION, SECRET_KEY
from cells_loopback.integrations.s3_clients import find_aws_file

if TYPE_CHECKING:
    from collections.abc import Mapping

Shell = Literal["sh", "fish", "powershell"]

# Whoever works with AWS too has some of these. They belong to other credentials, of which they would
# add a part to ours, or lead the client, and our token with it, to AWS.
_IN_THE_WAY = (
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
)
_OLD_REGION = "AWS_DEFAULT_REGION"


def environment(site: str, access_token: str) -> dict[str, str]:
    """Return the variables of a session."""
    return {
        "CELLS_SITE": site,
        "CELLS_ACCESS_TOKEN": access_token,
        "AWS_ACCESS_KEY_ID": access_token,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL_S3": site,
        "AWS_REGION": REGION,
    }


def clear_the_way(environ: Mapping[str, str], home: str) -> dict[str, str | None]:
    """Return what has to change in an environment for those variables to be heeded; None is to unset.

    boto3 and version 1 of aws know no ``AWS_REGION``: where another region is set up for them, in the
    environment or for the default profile, ``AWS_DEFAULT_REGION`` has to say ours.
    """
    changes: dict[str, str | None] = {name: None for name in _IN_THE_WAY if name in environ}
    if environ.get(_OLD_REGION, _default_region(environ, home)) != REGION:
        changes[_OLD_REGION] = REGION
    return changes


def _default_region(environ: Mapping[str, str], home: str) -> str:
    try:
        settings = read_section(
            read_text(find_aws_file(environ, home)), {"default", "profile default"}.__contains__
        )
    except StoreError:  # no client can read it either
        return REGION
    return (settings or {}).get("region", REGION)


def render_exports(variables: Mapping[str, str | None], shell: Shell) -> str:
    """Return the lines that set variables in a shell, or unset those that are None.

    They are safe to be evaluated whatever the values are.
    """
    set_variable, unset = {
        "sh": (_export_sh, "unset {}"),
        "fish": (_export_fish, "set -e {}"),
        "powershell": (_export_powershell, "Remove-Item Env:{}"),
    }[shell]
    return "\n".join(
        unset.format(name) if value is None else set_variable(name, value)
        for name, value in variables.items()
    )


def _export_sh(name: str, value: str) -> str:
    return f"export {name}={shlex.quote(value)}"


def _export_fish(name: str, value: str) -> str:
    # In single quotes fish reads a backslash only before a quote or another backslash.
    return "set -gx {} '{}'".format(name, value.replace("\\", "\\\\").replace("'", "\\'"))


def _export_powershell(name: str, value: str) -> str:
    # PowerShell takes the typographic single quotes for quotes as well.
    quoted = "".join(char * 2 if char in "'\u2018\u2019\u201a\u201b" else char for char in value)
    return f"$env:{name} = '{quoted}'"

"""What S3 clients need in their own configuration files to use the session.

aws and rclone ask for credentials whenever theirs end, through ``credential_process``. s3cmd and mc
cannot: they get the token of the moment, s3cmd from its environment, mc in its file or there.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cells_loopback.errors import StoreError, UsageError
from cells_loopback.integrations.config_file import read_text
from cells_loopback.integrations.config_json import merge_json, read_json
from cells_loopback.integrations.config_text import (
    merge_flat,
    merge_section,
    read_flat,
    read_section,
    render_section,
)
from cells_loopback.integrations.s3 import BUCKET, LONG_BUCKET, REGION, SECRET_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cells_loopback.integrations.config_text import Value
    from cells_loopback.integrations.s3 import GatewayCredentials

_COMMENT = "made by: cells-loopback s3 setup"
_OUR_PROCESS = re.compile(r"cells.loopback.*\bs3 credentials\s*$")


@dataclass(frozen=True)
class Connection:
    """What a client's configuration is made from.

    ``name`` is what the client is to call the site, ``file`` another file than the client's own.
    ``program`` starts us from anywhere, and ``session_options`` name the session to it;
    ``fetch_credentials`` is for the client that cannot run that.
    """

    site: str
    name: str
    program: tuple[str, ...]
    session_options: tuple[str, ...]
    fetch_credentials: Callable[[], GatewayCredentials]
    ca_bundle: str | None = None
    insecure: bool = False
    file: str | None = None
    windows: bool = os.name == "nt"


@dataclass(frozen=True)
class ClientFile:
    """One configuration file: what is to stand in it, and how that is merged into what stands there."""

    path: str
    text: str = field(repr=False)
    merge: Callable[[str], str] = field(repr=False)


@dataclass(frozen=True)
class ClientSetup:
    """All that a client needs: its files, and what the person should know."""

    files: tuple[ClientFile, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Client:
    """A client that can be set up.

    ``clean_name`` makes a name that it accepts out of any other.
    """

    clean_name: Callable[[str], str]
    configure: Callable[[Connection, Mapping[str, str], str], ClientSetup]


def find_file(environ: Mapping[str, str], variable: str, *candidates: str) -> str:
    """Return the file that the variable names, else the first that exists, else the first of all."""
    if chosen := environ.get(variable):
        return os.path.abspath(os.path.expanduser(chosen))
    return next((path for path in candidates if os.path.exists(path)), candidates[0])


def find_aws_file(environ: Mapping[str, str], home: str) -> str:
    """Return the configuration file of aws and the AWS SDKs."""
    return find_file(environ, "AWS_CONFIG_FILE", os.path.join(home, ".aws", "config"))


def configure_aws(connection: Connection, environ: Mapping[str, str], home: str) -> ClientSetup:
    """Describe a profile in the configuration file of aws, which boto3 and other AWS SDKs read too."""
    settings: dict[str, Value] = {
        "credential_process": render_command(connection),
        "endpoint_url": connection.site,
        "region": REGION,
        # Newer versions of aws send checksums in trailers unasked; the gateway of Cells is built on a
        # MinIO that is older than those (from source).
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    if connection.ca_bundle is not None:
        settings["ca_bundle"] = connection.ca_bundle
    # Without s3v4 version 1 of aws presigns links the old way.
    settings["s3"] = {"addressing_style": "path", "signature_version": "s3v4"}
    comments = (_COMMENT, "aws before 2.13 or 1.29 does not read endpoint_url: give it --endpoint-url")
    path = connection.file or find_aws_file(environ, home)
    file = _aws_profile(connection.name, settings, comments, path, _find_aws_keys(environ, home))
    notes = [f"use it with: aws --profile {connection.name} s3 ls s3://{BUCKET}"]
    if connection.insecure:
        notes.append("aws has no setting for a certificate that cannot be checked: add --no-verify-ssl")
    return ClientSetup((file,), tuple(notes))


def configure_rclone(connection: Connection, environ: Mapping[str, str], home: str) -> ClientSetup:
    """Describe a remote, and the profile in the file of aws by which rclone can be told to ask.

    The profile is rclone's own: before 1.68 it does not start with one that has a ``ca_bundle``.
    """
    profile = f"rclone-{connection.name}"
    aws_settings = {"credential_process": render_command(connection), "region": REGION}
    settings = {
        "type": "s3",
        "provider": "Other",
        "env_auth": "true",
        "profile": profile,
        "endpoint": connection.site,
        "region": REGION,
        "force_path_style": "true",
        "no_check_bucket": "true",  # it would try to create the bucket
    }

    def merge(text: str) -> str:
        return _merge_rclone(text, path, connection.name, settings)

    path = connection.file or _find_rclone_file(connection, environ, home)
    text = render_section(connection.name, settings, (_COMMENT,))
    notes = [f"use it with: rclone ls {connection.name}:{BUCKET}"]
    if connection.ca_bundle is not None:
        notes.append(f"rclone has no setting for the certificate: add --ca-cert {connection.ca_bundle}")
    elif connection.insecure:
        notes.append("rclone has no setting for that certificate: add --no-check-certificate")
    if environ.get("AWS_CA_BUNDLE"):
        notes.append("rclone before 1.68 does not start with AWS_CA_BUNDLE set: unset it for rclone")
    files = (
        _aws_profile(
            profile,
            aws_settings,
            (_COMMENT,),
            find_aws_file(environ, home),
            _find_aws_keys(environ, home),
        ),
        ClientFile(path, text, merge),
    )
    return ClientSetup(files, tuple(notes))


def configure_s3cmd(connection: Connection, environ: Mapping[str, str], home: str) -> ClientSetup:
    """Describe all but the keys: s3cmd takes them from its environment when its file has none."""
    url = urlsplit(connection.site)
    settings = {
        "host_base": url.netloc,
        "host_bucket": url.netloc,
        "bucket_location": REGION,
        "use_https": str(url.scheme == "https"),
        "signature_v2": "False",
    }
    if connection.ca_bundle is not None:
        settings["ca_certs_file"] = connection.ca_bundle
    elif connection.insecure:
        settings["check_ssl_certificate"] = "False"
    default = os.path.join(home, ".s3cfg")
    if connection.windows and (appdata := environ.get("APPDATA")):
        default = os.path.join(appdata, "s3cmd.ini")
    path = connection.file or find_file(environ, "S3CMD_CONFIG", default)
    comments = (_COMMENT, "the keys come from: cells-loopback exec")

    def merge(text: str) -> str:
        return _merge_s3cmd(text, path, settings, comments)

    file = ClientFile(path, render_section("default", settings, comments), merge)
    recipe = _render_exec(connection, "s3cmd", "ls", f"s3://{BUCKET}")
    return ClientSetup((file,), (f"s3cmd cannot ask for credentials; give it those of the moment: {recipe}",))


def configure_mc(connection: Connection, environ: Mapping[str, str], home: str) -> ClientSetup:
    """Describe an alias with the token of the moment; the one other way for mc is its environment."""
    credentials = connection.fetch_credentials()
    alias = {
        "url": connection.site,
        "accessKey": credentials.access_key.reveal(),
        "secretKey": SECRET_KEY,
        "api": "S3v4",
        "path": "on",
    }
    directory = environ.get("MC_CONFIG_DIR") or os.path.join(home, "mc" if connection.windows else ".mc")
    path = connection.file or os.path.join(os.path.abspath(os.path.expanduser(directory)), "config.json")

    def merge(text: str) -> str:
        return _merge_mc(text, path, connection.name, alias)

    scheme, _, host = connection.site.partition("://")
    url = f"{scheme}://$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY@{host}"
    command = f"MC_HOST_{connection.name}={url} mc ls {connection.name}/{LONG_BUCKET}"
    notes = [
        "mc cannot ask for credentials: this alias ends with its token, after some minutes",
        f"for a token of the moment: {_render_exec(connection, 'sh', '-c', command)}",
        f"mc refuses a bucket named {BUCKET}; the same files are in {LONG_BUCKET}",
    ]
    if connection.ca_bundle is not None:
        notes.append(
            f"put the certificate where mc looks: {os.path.join(os.path.dirname(path), 'certs', 'CAs')}"
        )
    elif connection.insecure:
        notes.append("mc has no setting for a certificate that cannot be checked: add --insecure")
    return ClientSetup((ClientFile(path, merge("").rstrip("\n") + "\n", merge),), tuple(notes))


def render_command(connection: Connection) -> str:
    """Return the command line for ``credential_process``.

    botocore splits it as a POSIX shell does, or on Windows as a C program; SDKs for Go hand it to a shell.
    """
    return _join(connection, (*connection.program, *connection.session_options, "s3", "credentials"))


def _render_exec(connection: Connection, *command: str) -> str:
    """Return what a person types to run ``command`` with this very session."""
    return _join(connection, ("cells-loopback", "exec", *connection.session_options, "--", *command))


def _join(connection: Connection, argv: tuple[str, ...]) -> str:
    return subprocess.list2cmdline(argv) if connection.windows else shlex.join(argv)


def _find_aws_keys(environ: Mapping[str, str], home: str) -> str:
    """Return the file of keys, which aws looks into before it runs any program."""
    return find_file(environ, "AWS_SHARED_CREDENTIALS_FILE", os.path.join(home, ".aws", "credentials"))


def _aws_profile(
    name: str, settings: Mapping[str, Value], comments: tuple[str, ...], path: str, keys_path: str
) -> ClientFile:
    header = f"profile {name}"

    def is_header(text: str) -> bool:
        kind, _, quoted = text.partition(" ")
        return kind == "profile" and quoted.strip().strip("\"'") == name

    def merge(text: str) -> str:
        present = read_section(text, is_header) or {}
        foreign = sorted(
            key
            for key in present
            if key in {"aws_access_key_id", "role_arn", "web_identity_token_file"} or key.startswith("sso_")
        )
        process = present.get("credential_process")
        if process and process != settings["credential_process"] and not _OUR_PROCESS.search(process):
            foreign.append("credential_process")
        if foreign:
            raise _taken(f"[{header}] in {path} already has other credentials: {', '.join(foreign)}")
        if "aws_access_key_id" in (read_section(read_text(keys_path), name.__eq__) or {}):
            raise _taken(f"[{name}] in {keys_path} has keys, and aws would go on using those")
        return merge_section(
            text, settings, header=header, is_header=is_header, nested=True, comments=comments
        )

    return ClientFile(path, render_section(header, settings, comments), merge)


def _find_rclone_file(connection: Connection, environ: Mapping[str, str], home: str) -> str:
    """Return the file that rclone itself would take (`rclone config file`)."""
    base = environ.get("APPDATA" if connection.windows else "XDG_CONFIG_HOME")
    return find_file(
        environ,
        "RCLONE_CONFIG",
        os.path.join(base or os.path.join(home, ".config"), "rclone", "rclone.conf"),
        os.path.join(home, ".config", "rclone", "rclone.conf"),
        os.path.join(home, ".rclone.conf"),
    )


def _merge_rclone(text: str, path: str, name: str, settings: Mapping[str, str]) -> str:
    if "RCLONE_ENCRYPT_V" in text:
        values = " ".join(f"{key}={value}" for key, value in settings.items() if key != "type")
        raise UsageError(
            f"{path} is encrypted", hint=f"let rclone write it: rclone config create {name} s3 {values}"
        )
    present = read_section(text, name.__eq__) or {}
    # Our own entry is known by its profile, wherever its site is now; any other by what it is for.
    marks = ("type", "profile") if "profile" in present else ("type", "provider", "endpoint")
    differs = any(present.get(key, settings[key]) != settings[key] for key in marks)
    if differs or present.get("access_key_id"):
        raise _taken(f"[{name}] in {path} is already another remote")
    return merge_section(
        text, settings, header=name, is_header=name.__eq__, nested=False, comments=(_COMMENT,)
    )


def _merge_s3cmd(text: str, path: str, settings: Mapping[str, str], comments: tuple[str, ...]) -> str:
    present = read_flat(text)
    keys = [key for key in ("access_key", "secret_key", "access_token") if present.get(key)]
    if present.get("host_base", settings["host_base"] if not keys else "") != settings["host_base"]:
        raise UsageError(
            f"{path} is already for another server, and s3cmd knows one server a file",
            hint=f"give this one a file of its own: --file {path}-cells, used with: s3cmd -c {path}-cells",
        )
    # A key in the file, by now a dead one, would come before the environment.
    return merge_flat(text, {**settings, **dict.fromkeys(keys, "")}, header="default", comments=comments)


def _merge_mc(text: str, path: str, name: str, alias: Mapping[str, str]) -> str:
    try:
        merged = merge_json(text, ("aliases", name), alias) if text.strip() else ""
    except ValueError:
        merged = None
    if merged is None or (merged and '"version"' not in text):
        raise StoreError(
            f"{path} is not a configuration of mc", hint="let mc write it: move it away, then run mc ls"
        )
    if merged and read_json(text, ("aliases", name, "url")) not in (None, alias["url"]):
        raise _taken(f"the alias {name} in {path} is already another server's")
    return merged or merge_json("", (), {"version": "10", "aliases": {name: dict(alias)}})


def _taken(message: str) -> UsageError:
    return UsageError(message, hint="leave it as it is and choose another name: --name NAME")


def _clean_profile(name: str) -> str:
    # The profile "default" is the one that aws takes when none is named: not ours to replace.
    cleaned = re.sub(r"[^A-Za-z0-9_.@+:-]+", "-", name).strip("-")
    return cleaned if cleaned not in {"", "default"} else "cells"


def _clean_remote(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+@-]+", "-", name).strip("-") or "cells"


def _clean_alias(name: str) -> str:
    # mc takes a dash too, but MC_HOST_ALIAS is to be a variable's name in any shell.
    cleaned = re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
    return cleaned if cleaned[:1].isalpha() else f"cells_{cleaned}"


CLIENTS: Mapping[str, Client] = {
    "aws": Client(_clean_profile, configure_aws),
    "rclone": Client(_clean_remote, configure_rclone),
    "s3cmd": Client(lambda name: name, configure_s3cmd),
    "mc": Client(_clean_alias, configure_mc),
}
"""The clients by the name of their command."""

"""For S3 clients: the site's gateway, and credentials for it in the forms that clients take.

As on every Cells server the endpoint is the site itself, the access key is the access token, and the
secret key is the same for everybody. Nothing here knows where a token comes from: a `TokenSource`
goes in. What the clients' own files look like is `s3_clients`' part.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from cells_loopback.clock import attainable, uptime, wall
from cells_loopback.errors import LoginRequiredError, ServerUnavailableError, StoreError, UsageError
from cells_loopback.integrations.expiration import SDK_WINDOW, end_of_credentials, format_expiration

if TYPE_CHECKING:
    from cells_loopback.protocol.tokens import TokenSource
    from cells_loopback.secret import Secret

BUCKET = "io"
LONG_BUCKET = "data"
"""The same bucket for clients that refuse names of fewer than three letters (Cells v4 and v5)."""
REGION = "us-east-1"
SECRET_KEY = "gatewaysecret"  # noqa: S105 - Cells' own constant, published in its documentation

# In process asking again is cheap, and the source renews a minute before the end.
_ADVISORY_WINDOW = 60
_MANDATORY_WINDOW = 10


@dataclass(frozen=True)
class GatewayCredentials:
    """What signs requests, and until when.

    ``expiration`` is in Unix seconds by this machine's clock, which is the one that clients look at;
    None when nobody knows. It lies before the token's end, and never in the past.
    """

    access_key: Secret
    expiration: float | None


def fetch_credentials(source: TokenSource, *, min_valid: float | None = None) -> GatewayCredentials:
    """Return credentials for the gateway, from a token that is renewed first where that is needed.

    With ``min_valid`` it is renewed early too, as far as its life is as long at all; where that cannot
    be, the token that is good by the ordinary measure is taken. Raises what the source raises.
    """
    tokens = source.token()
    if min_valid is not None and tokens.lifetime is not None:
        wish = attainable(min_valid, tokens.lifetime)
        try:
            tokens = tokens if tokens.is_fresh(wish, wall(), uptime()) else source.token(min_valid=wish)
        except (ServerUnavailableError, LoginRequiredError, StoreError):
            pass
    now = wall()
    left = tokens.seconds_left(now, uptime())
    expiration = None if math.isinf(left) else end_of_credentials(now, left)
    return GatewayCredentials(tokens.access_token, expiration)


def render_credential_process(source: TokenSource) -> str:
    """Return the JSON that AWS SDKs expect of a ``credential_process``."""
    credentials = fetch_credentials(source, min_valid=SDK_WINDOW)
    document: dict[str, object] = {
        "Version": 1,
        "AccessKeyId": credentials.access_key.reveal(),
        "SecretAccessKey": SECRET_KEY,
    }
    if credentials.expiration is not None:
        document["Expiration"] = format_expiration(credentials.expiration)
    return json.dumps(document)


def refreshable_credentials(source: TokenSource) -> Any:
    """Return a botocore ``RefreshableCredentials`` that stays valid as long as the session does.

    boto3 takes them through a botocore session, ``boto3.Session(botocore_session=core)``, where before
    ``core.register_component("credential_provider", SimpleNamespace(load_credentials=lambda: credentials))``.

    Raises `UsageError` when botocore is not installed, and what the source raises; so do later requests.
    """
    try:
        from botocore.credentials import RefreshableCredentials
    except ImportError:
        raise UsageError(
            "botocore is not installed", hint="install it with: pip install 'cells-loopback[s3]'"
        ) from None
    first = fetch_credentials(source)
    return RefreshableCredentials(
        first.access_key.reveal(),
        SECRET_KEY,
        None,
        None if first.expiration is None else datetime.fromtimestamp(first.expiration, timezone.utc),
        refresh_using=lambda: _render_metadata(fetch_credentials(source)),
        method="cells-loopback",
        # botocore's own windows, 15 and 10 minutes, are as long as a Cells token lives at all.
        advisory_timeout=_ADVISORY_WINDOW,
        mandatory_timeout=_MANDATORY_WINDOW,
    )


def _render_metadata(credentials: GatewayCredentials) -> dict[str, str | None]:
    # A source that says no end any more (another login, with a personal access token) is asked again
    # in an hour: botocore cannot be told "never" here.
    expiration = credentials.expiration if credentials.expiration is not None else wall() + 3600
    return {
        "access_key": credentials.access_key.reveal(),
        "secret_key": SECRET_KEY,
        "token": None,
        "expiry_time": format_expiration(expiration),
    }

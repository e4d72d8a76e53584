"""Until when S3 clients are told that credentials live.

``Expiration`` is the truth less a margin, because SDKs disagree on what to make of it: those for Go use
credentials up to that second, botocore asks again from 15 minutes before it. A later one would spare
botocore a process for each request, and let Go send dead tokens.

Light on purpose: botocore runs ``s3 credentials`` before every request while a token lives for less
than its 15 minutes, so that call must cost next to nothing.
"""

from __future__ import annotations

import time

MARGIN = 30.0
"""Seconds that credentials end before their token: a request takes a while to arrive."""

SDK_WINDOW = 15 * 60 + 2 * MARGIN
"""Seconds that a token must still live for the SDKs to be content: one that lives longer than that at
all is renewed when they first ask, not when they have asked at every request for 15 minutes."""


def end_of_credentials(now: float, left: float) -> float:
    """Return when credentials end whose token lives for ``left`` seconds more: after ``now``, always."""
    return now + left - min(MARGIN, left / 2)


def format_expiration(seconds: float) -> str:
    """Return RFC 3339 in UTC; with milliseconds, because a token may live for two seconds only."""
    milliseconds = int(seconds * 1000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(milliseconds // 1000))
    return f"{text}.{milliseconds % 1000:03}Z"

"""What a server that lost or replaced our ``code_challenge`` answers, and what may be done then.

Cells issues its code through a second, internal authorization request, and on many releases (v2 to
v4, and v5 snapshots) that request does not carry the client's challenge along. The exchange with a
``code_verifier`` then fails in one of two ways, told apart by fosite's own wording. Every other
answer is an ordinary failure: it never downgrades.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

PKCEPolicy = Literal["auto", "required", "off"]
"""``login --pkce``."""

PKCEBinding = Literal["bound", "unbound", "foreign", "off"]
"""What a session records: whether the server tied the code to our verifier."""

PKCEFailure = Literal["unbound", "foreign"]

# fosite handler/pkce: the session of the authorization request is looked up before the code is used up,
# so in these cases the code is still good for one exchange without a verifier.
_UNBOUND = (
    "unable to find initial pkce data tied to this request",
    "the pkce code verifier was provided but the code challenge was absent from the authorization request",
)
# Also what a code injected by somebody else is answered with: such a code must never be tried again.
_FOREIGN = ("the pkce code challenge did not match the code verifier",)

_MEMBERS = ("error_hint", "error_description", "error_debug")


def classify_pkce_failure(answer: Mapping[str, object]) -> PKCEFailure | None:
    """Tell from an error answer to the exchange (RFC 6749 §5.2) how PKCE failed; None: not by PKCE.

    The hint stands in ``error_hint`` on older releases and inside ``error_description`` on newer ones.
    """
    if answer.get("error") != "invalid_grant":
        return None
    words = " ".join(value for name in _MEMBERS if isinstance(value := answer.get(name), str))
    words = re.sub(r"[\s'\"`]+", " ", words).lower()
    # The mismatch is looked for first: where both stand, the stricter reading holds.
    if any(wording in words for wording in _FOREIGN):
        return "foreign"
    if any(wording in words for wording in _UNBOUND):
        return "unbound"
    return None

"""An answer that a person carries over: the address or the code from a browser on another machine."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from cells_loopback.errors import LoginFailedError
from cells_loopback.loopback.callback_request import CallbackResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cells_loopback.protocol.authorization import AuthorizationRequest

_MAX_PARAMETERS = 20


def parse_callback_address(line: str, redirect_uri: str) -> CallbackResponse | None:
    """Read an address that a browser ended at; None unless it is the redirect URI, each parameter once.

    An address bar may hide the scheme, and mail and chat put quotes or brackets around what is copied.
    """
    address, question, query = line.strip().strip("\"'<>").partition("?")
    if not question or address not in {redirect_uri, redirect_uri.partition("://")[2]}:
        return None
    try:
        parameters = parse_qs(query.partition("#")[0], keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        return None
    if not parameters or any(len(values) != 1 for values in parameters.values()):
        return None
    return CallbackResponse({name: values[0] for name, values in parameters.items()})


async def wait_for_address(
    request: AuthorizationRequest, lines: AsyncIterator[str], on_rejected: Callable[[], object]
) -> CallbackResponse:
    """Wait for a pasted address that carries the request's ``state``; any other line is turned away."""
    async for line in lines:
        parameters = parse_callback_address(line, request.redirect_uri)
        if parameters is not None and request.matches_state(parameters.get("state", "")):
            return parameters
        if line.strip():
            on_rejected()
    return await asyncio.Future()  # end of input: the browser may still come


async def wait_for_code(request: AuthorizationRequest, lines: AsyncIterator[str]) -> CallbackResponse:
    """Wait for the code that the server's own copy-paste page shows, or for the address of that page.

    The page shows the code alone, so there is no ``state`` to check: the person who pastes it is the one
    who asked, and PKCE ties it to this login where the server binds it. Raises `LoginFailedError` when
    the input ends or holds what no code may hold (RFC 6749 appendix A.11).
    """
    async for line in lines:
        pasted = line.strip()
        if not pasted:
            continue
        if not (pasted.isascii() and pasted.isprintable()):
            raise LoginFailedError(
                "what was pasted is not a code", hint="log in again and copy it from the page", code="paste"
            )
        address = parse_callback_address(pasted, request.redirect_uri)
        return address or CallbackResponse(code=pasted, state=request.state.reveal())
    raise LoginFailedError("no code was pasted", hint="log in again", code="paste")

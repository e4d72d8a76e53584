"""What the callback server answers: pages, redirects and refusals, each with the strict headers."""

from __future__ import annotations

import functools

from aiohttp import web

from cells_loopback.loopback import pages


def page_response(status: int, document: bytes) -> web.Response:
    """Return a page, its connection closed behind it."""
    response = web.Response(status=status, body=document, headers=_headers(document))
    response.force_close()
    return response


def _headers(document: bytes) -> dict[str, str]:
    # A Server header of our own, because aiohttp's tells its version and Python's.
    return {**pages.security_headers(document), "Server": "cells-loopback"}


def redirect_response(location: str, document: bytes | None) -> web.Response:
    """Answer 303: whatever the browser did to come here, it goes on with GET (RFC 9110 §15.4.4)."""
    body = document or b""
    return web.Response(status=303, body=body, headers={**_headers(body), "Location": location})


def refusal(status: int, reason: str) -> web.Response:
    """Return the answer to a request that is not the login's."""
    response = page_response(status, _refusal_document(reason))
    if status == 405:
        response.headers["Allow"] = "GET"  # RFC 9110 §15.5.6
    return response


@functools.cache  # a flood of one kind of request costs one rendering
def _refusal_document(reason: str) -> bytes:
    if reason in {"already_used", "already_answered"}:
        return pages.render_page(pages.already_used())
    return pages.render_page(pages.rejected(reason))

"""What can go wrong, by what a person or a script can do next.

::

    CellsLoopbackError           1  unexpected: a defect of ours
    ├── UsageError               2  mend the call
    ├── NotLoggedInError         3  log in: no such profile, or not logged in
    ├── LoginRequiredError       4  log in again: the session cannot be renewed
    ├── LoginFailedError         5  read the message: refused, not a Cells server, no free port
    ├── LoginTimeoutError        6  try again: nobody finished the login in time
    ├── ServerUnavailableError   7  retry later: the server is unreachable or failing
    ├── StoreError               8  read the message: the local store cannot be read, written or locked
    └── UntrustedServerError     9  read the message: the server cannot be trusted

There is one class for each exit code, not one for each OAuth error code: the server's ``error``
and its words are part of the message. No message ever holds a token, a code or a secret.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    Result = TypeVar("Result")


class CellsLoopbackError(Exception):
    """The root of all errors of this package.

    ``message`` says what happened, ``hint`` what to do next (possibly empty), ``code`` is a stable
    word for programs, the same that the ``error`` event of ``login --json`` carries.
    """

    exit_code: int = 1
    default_code: str = "unexpected"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code


class UsageError(CellsLoopbackError):
    """The call itself is wrong: an option, a site or a profile name that cannot be meant."""

    exit_code = 2
    default_code = "usage"


class NotLoggedInError(CellsLoopbackError):
    """There is no such profile, or nobody has logged in yet."""

    exit_code = 3
    default_code = "not_logged_in"


class LoginRequiredError(CellsLoopbackError):
    """The session cannot be renewed without a person."""

    exit_code = 4
    default_code = "login_required"


class LoginFailedError(CellsLoopbackError):
    """The server or this machine refused: an error answer, no Cells server, no free port."""

    exit_code = 5
    default_code = "login_failed"


class LoginTimeoutError(CellsLoopbackError):
    """Nobody finished the login within the time limit."""

    exit_code = 6
    default_code = "timeout"


class ServerUnavailableError(CellsLoopbackError):
    """The server cannot be reached or is failing; the session is kept.

    ``retry_after`` is the server's own wish in seconds (RFC 9110 §10.2.3), None without one.
    ``answer_lost`` means that the request was sent and nobody knows whether it was carried out.
    """

    exit_code = 7
    default_code = "server_unavailable"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        code: str = "",
        retry_after: float | None = None,
        answer_lost: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.retry_after = retry_after
        self.answer_lost = answer_lost


class StoreError(CellsLoopbackError):
    """The local store cannot be read, written or locked; what is stored stays as it is."""

    exit_code = 8
    default_code = "store"


class UntrustedServerError(CellsLoopbackError):
    """The server cannot be trusted: certificate, issuer, ``iss``, ID token, foreign endpoint, plain http."""

    exit_code = 9
    default_code = "untrusted_server"


def without_frames(action: Callable[[], Result]) -> Result:
    """Return what ``action()`` returns; an error of ours leaves it alone, without causes and frames.

    For work on secrets in the clear: tools that print a traceback with the values of variables (rich,
    pytest, crash reporters) would show them.
    """
    try:
        return action()
    except CellsLoopbackError as error:
        failure = error
    failure.__cause__ = failure.__context__ = None
    raise failure.with_traceback(None)

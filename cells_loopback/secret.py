"""A string that never prints itself.

Every record that carries a token, a code, a verifier or a client secret holds it as a `Secret`, so
neither a log line nor a ``repr`` nor a traceback with locals can show it by accident. The text is
taken out with `Secret.reveal`, in the one place that puts it on the wire or on the disk.
"""

from __future__ import annotations


class Secret:
    """A piece of text to be kept: equal by value, compared in constant time, printed as ``***``."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self.__text

    def __eq__(self, other: object) -> bool:
        """Compare in time that depends on the length alone."""
        if not isinstance(other, Secret):
            return NotImplemented
        from hmac import compare_digest

        # A lone surrogate, from a damaged file or environment, must not end in an error that quotes the text.
        ours, theirs = (text.encode("utf-8", "surrogatepass") for text in (self.__text, other.reveal()))
        return compare_digest(ours, theirs)

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret does not leave the process by pickling or copying")

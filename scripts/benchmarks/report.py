"""The tables, in Markdown, so that one can go into the README as it is."""

from __future__ import annotations

import os
import platform
import ssl
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .samples import EMPTY, median_and_spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .samples import Samples


@dataclass(frozen=True)
class Row:
    """One line of the table of ratios: ``name`` of the samples, ``base`` of the ratio, what is promised."""

    title: str
    name: str
    promise: str = ""
    base: str = EMPTY


def describe_machine(timer: str) -> str:
    """Return what the times depend on, nothing that tells whose machine it is."""
    return (
        f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, {platform.system()}"
        f" {platform.release().partition('-')[0]}, Python {platform.python_version()},"
        f" {ssl.OPENSSL_VERSION.rpartition(' ')[0].rpartition(' ')[0].rpartition(' ')[0]}, {timer}"
    )


def print_ratios(samples: Samples, rows: Iterable[Row]) -> None:
    """Print the table of all rows that have been measured."""
    table = []
    for row in rows:
        if row.name not in samples:
            continue
        middle, low, high = median_and_spread(samples.ratios(row.name, row.base))
        seconds = median_and_spread(samples.seconds(row.name))[0]
        unit = "P" if row.base == EMPTY else "times"
        table.append(
            (row.title, f"{middle:.2f} {unit}", f"{low:.2f} to {high:.2f}", _duration(seconds), row.promise)
        )
    print_table(("", "median", "middle half", "time", "promised"), table)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print one table."""
    print()
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")
    sys.stdout.flush()


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"

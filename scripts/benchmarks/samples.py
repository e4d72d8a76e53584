"""Times of many rounds, and the ratios within each round."""

from __future__ import annotations

import statistics
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Probe = Callable[[], Iterable[tuple[str, float]]]

EMPTY = "python -c pass"


class Samples:
    """Seconds by name and round. A name may come several times in a round: its median counts."""

    def __init__(self) -> None:
        self._rounds: list[Mapping[str, float]] = []

    def run_round(self, probe: Probe) -> None:
        """Ask once; what is to be compared with something is yielded beside it."""
        found: defaultdict[str, list[float]] = defaultdict(list)
        for name, seconds in probe():
            found[name].append(seconds)
        self._rounds.append({name: statistics.median(values) for name, values in found.items()})

    @property
    def has_rounds(self) -> bool:
        """Whether anything has been measured."""
        return bool(self._rounds)

    def __contains__(self, name: str) -> bool:
        return any(name in found for found in self._rounds)

    def seconds(self, name: str) -> list[float]:
        """Return the times of all rounds."""
        return [found[name] for found in self._rounds if name in found]

    def ratios(self, name: str, base: str = EMPTY) -> list[float]:
        """Return the ratio to ``base`` in each round that has both."""
        return [found[name] / found[base] for found in self._rounds if name in found and base in found]


def median_and_spread(values: list[float]) -> tuple[float, float, float]:
    """Return the median and the two quartiles."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return middle, low, high

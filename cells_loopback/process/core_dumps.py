"""No core dump of a process that holds tokens: a dump would put them on the disk for whoever reads it."""

from __future__ import annotations

import sys


def forbid_core_dumps() -> int | None:
    """Forbid them where the platform allows it; return the limit that was, for `restore_core_dumps`."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    return soft


def restore_core_dumps(soft: int | None) -> None:
    """Allow another program that takes this process's place what it was allowed before."""
    if sys.platform == "win32" or soft is None:
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))

"""How many cores there are to compute on."""

import os


def usable_cores() -> int:
    """As many as this process may use, which a container or a job's settings make fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

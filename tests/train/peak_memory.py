"""How much memory a command takes, with all processes that it starts.

Run as a script, on Linux: ``python tests/train/peak_memory.py python -m train --data stl10-unlabelled:FOLDER``.
"""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def peak_rss(command: list[str], every: float = 0.1, seconds: float = 600, **options) -> tuple[int, int]:
    """The largest sum of resident bytes seen in the command's processes, and its exit status.

    A command that takes more than ``seconds`` is killed. What processes share is counted once for each, so the true
    figure is somewhat lower.
    """
    process, peak = subprocess.Popen(command, **options), 0
    deadline = time.monotonic() + seconds
    while process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        peak = max(peak, sum(map(_resident, family(process.pid))))
        time.sleep(every)
    return peak, process.returncode


def family(root: int) -> set[int]:
    """A process and all that it and they have started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The program's name, in parentheses, may hold spaces; the parent comes second after it.
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    family, size = {root}, 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    return family


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except OSError:
        return 0


if __name__ == "__main__":
    began = time.monotonic()
    most, status = peak_rss(sys.argv[1:], seconds=math.inf)
    print(
        f"peak memory of all processes: {most / 2**20:.0f} MiB, after {time.monotonic() - began:.0f} s", file=sys.stderr
    )
    sys.exit(status)

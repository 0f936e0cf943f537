"""The memory that work takes, measured in a process of its own: beside others, a peak could be anybody's."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .figures import OURS
from .subjects import Subject

SHARE = 0.8  # of the machine's memory that the process may take, so that the system need not kill any
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
# The C library gives back what is freed, or it would be missing from the peak of the next call.
RETURNING = {"MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_MMAP_THRESHOLD_": "65536"}


def peak(subject: Subject, side: str) -> float | None:
    """The bytes that a call of the subject's last work takes beyond what the process holds before it.

    Args:
        subject: what is called, twice: the first call compiles and does not count.
        side: `OURS` or a form of the twin.

    Returns:
        The bytes; None where the system does not tell.

    Raises:
        RuntimeError: the work failed; says how.
    """
    words = [sys.executable, "-m", __name__, side, subject.name, str(subject.batch), *map(str, subject.size)]
    done = subprocess.run(words, env={**os.environ, **RETURNING}, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(last)
    told = done.stdout.split()[-1]
    return None if told == "None" else float(told)


def main(words: Sequence[str]) -> None:
    """Does the work and prints the bytes."""
    from train.devices import use_all_cores

    use_all_cores()
    limit_memory()
    import jax
    import torch

    from .ours import Ours
    from .theirs import Theirs

    side, name, *numbers = words
    batch, height, width, channels = map(int, numbers)
    subject = Subject(name, batch, (height, width, channels))
    ours = Ours(subject)
    work = (ours if side == OURS else Theirs(subject, ours, side)).works[subject.works[-1]]
    work()
    on_gpu = jax.default_backend() == "gpu" if side == OURS else torch.cuda.is_available()
    if on_gpu and side != OURS:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        print(torch.cuda.max_memory_allocated() - before)
    elif on_gpu:  # its peak cannot be reset; compiling takes none of it
        device = jax.devices()[0]
        print(device.memory_stats()["peak_bytes_in_use"] - device.memory_stats()["bytes_in_use"])
    elif not RESET.exists():
        print(None)
    else:
        RESET.write_text("5")
        before = resident("VmRSS")
        work()
        print(resident("VmHWM") - before)


def limit_memory() -> None:
    """Makes an allocation beyond `SHARE` fail, where the system can."""
    if sys.platform == "linux":
        import resource

        most = int(SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def resident(entry: str) -> int:
    """The bytes of this process in memory: VmRSS now, VmHWM at most since `RESET`."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(entry))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main(sys.argv[1:])

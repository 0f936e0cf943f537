"""The processes of a run, on one host or on many: how they meet, and what they tell one another.

Processes that were told a coordinator first meet at its address, as JAX ends those with a wrong number by a C++ trace.
``jax.distributed`` joins them and watches over them: where one is lost, the others end within `HEARTBEAT` seconds. One
that hangs, or waits for one that does, ends itself: see `within`. A run of one process does nothing of this.
"""

import atexit
import contextlib
import faulthandler
import json
import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from .config import told_default

HEARTBEAT = 30  # seconds without a sign of life after which a process is lost
ANSWER = 10  # seconds that a process has to say its number, and process 0 to tell the others who is missing
STEP = 60  # seconds that a process may hang in a step, beyond ten times what the last one took
FIRST = 600  # seconds that it may take where it compiles, or waits for others that do, or that read or write files
SHARED = ".shared"  # a file that tells whether all processes see a folder
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """How the processes of a run find each other.

    Attributes:
        coordinator: Where process 0 can be reached, HOST:PORT, for a run of several processes. Under SLURM, Open MPI
            and Kubernetes none of the four is needed.
        num_processes: Number of processes.
        process_id: Which of them this is, from 0.
        join_seconds: How long to wait for the others.
    """

    coordinator: Annotated[str | None, told_default("what the batch system says, if any", "HOST:PORT")] = None
    num_processes: Annotated[int | None, told_default("as above")] = None
    process_id: Annotated[int | None, told_default("as above")] = None
    join_seconds: int = 300


def join(processes: Processes) -> None:
    """Joins the processes that the options, or the variables of a batch system, tell of; call it before JAX computes.

    Raises ``ValueError`` for options that do not fit together, and where the processes do not meet.
    """
    if jax.distributed.is_initialized():
        return
    if processes.join_seconds < 1:
        raise ValueError(f"--join-seconds must be at least 1, got {processes.join_seconds}")
    given = (processes.coordinator, processes.num_processes, processes.process_id)
    more: dict[str, Any] = {}
    if given != (None, None, None):
        address, system = _check(processes), ""
        if processes.num_processes == 1:
            return
        meet(*address, processes)
        # One process may use all devices of its host, whatever the batch system says.
        more |= zip(("coordinator_address", "num_processes", "process_id"), given, strict=True)
        more["cluster_detection_method"] = "deactivate"
    elif not (system := launched(dict(os.environ))):
        return
    more |= dict.fromkeys(("initialization_timeout", "shutdown_timeout_seconds"), processes.join_seconds)
    try:
        jax.distributed.initialize(**more, heartbeat_timeout_seconds=HEARTBEAT)
    except Exception as error:  # each batch system has its own
        hint = system and f"; JAX joins them by {system}, or by --coordinator, --num-processes and --process-id"
        raise ValueError(f"the processes of the run could not join: {error}{hint}") from error
    # JAX has all wait for one another at their end: one that failed alone must not.
    atexit.register(_watch("hear from the others at its end", ANSWER).start)
    counts = [len(jax.local_devices(number)) for number in range(jax.process_count())]
    if len({*counts}) > 1:
        raise ValueError(f"all processes must have the same number of devices, got {counts} in the order of their ids")


def launched(variables: dict[str, str]) -> str:
    """By what JAX joins the processes that a batch system has started; "" where the variables tell of one alone.

    Example:
        >>> launched({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}), launched({"SLURM_JOB_ID": "7"})
        ('SLURM_JOB_ID, SLURM_STEP_NODELIST and SLURM_LOCALID, as SLURM_NTASKS is 2', '')
    """
    tpus = variables.get("TPU_PROCESS_ADDRESSES", variables.get("TPU_WORKER_HOSTNAMES", ""))
    name, needs = "OMPI_COMM_WORLD_SIZE", "OMPI_MCA_orte_hnp_uri, which Open MPI 4 sets"
    if "SLURM_PROCID" in variables:  # set by srun alone
        name, needs = "SLURM_NTASKS", "SLURM_JOB_ID, SLURM_STEP_NODELIST and SLURM_LOCALID"
    elif "KUBERNETES_SERVICE_HOST" in variables and "JOB_COMPLETION_INDEX" in variables:
        return "the package kubernetes, as JOB_COMPLETION_INDEX is set"  # of how many only the cluster knows
    elif "," in tpus or int(variables.get("MEGASCALE_NUM_SLICES", 1)) > 1:
        return "TPU_WORKER_HOSTNAMES"
    if not (count := variables.get(name, "1")).isdecimal():
        raise ValueError(f"{name} must be a number, got {count!r}")
    return f"{needs}, as {name} is {count}" if int(count) > 1 else ""


def _check(processes: Processes) -> tuple[str, int]:
    """The coordinator's host and port; raises ``ValueError`` for options out of range."""
    number, identity, address = processes.num_processes, processes.process_id, processes.coordinator
    if number is None or identity is None or address is None:
        told = f"got {address}, {number} and {identity}"
        raise ValueError(f"--coordinator, --num-processes and --process-id must be given together, {told}")
    if number < 1:
        raise ValueError(f"--num-processes must be at least 1, got {number}")
    if not 0 <= identity < number:
        raise ValueError(f"--process-id must lie in [0, {number}), from 0 to below --num-processes, got {identity}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"--coordinator must be HOST:PORT, got {address!r}")
    return host.strip("[]"), int(port)


def meet(host: str, port: int, processes: Processes) -> None:
    """Waits until every number is there once; raises the same ``ValueError`` in all processes where that fails."""
    given = port, processes, time.monotonic() + processes.join_seconds
    if problem := _receive(*given) if processes.process_id == 0 else _call(host, *given):
        raise ValueError(problem)


def _receive(port: int, processes: Processes, deadline: float) -> str:
    """Process 0: takes the others' numbers, and tells all of them what is wrong, or "" to go on."""
    number, problem = processes.num_processes or 1, ""
    callers: dict[int, Any] = {}
    with contextlib.ExitStack() as stack:
        try:
            both = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if both else socket.AF_INET
            server = stack.enter_context(socket.create_server(("", port), family=family, dualstack_ipv6=both))
        except OSError as error:
            told = f"got {processes.coordinator}: {error.strerror}; does another process have --process-id 0?"
            return f"--coordinator must name a free port of process 0, {told}"
        while len(callers) < number - 1 and not problem:
            server.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                line = stack.enter_context(server.accept()[0])
            except TimeoutError:
                missing = sorted({*range(1, number)} - {*callers})
                problem = f"no process called with --process-id {missing} of {number} within {processes.join_seconds} s"
                break
            try:
                line.settimeout(ANSWER)
                caller = stack.enter_context(line.makefile("rw"))
                index, count = map(int, caller.readline().split())
            except (OSError, ValueError):  # a port scanner
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
                continue
            if count != number:
                problem = f"--num-processes must be the same everywhere, got {count} in process {index}, not {number}"
            elif index in callers or index == 0:
                problem = f"--process-id must differ from process to process, got {index} twice"
            callers[index if index not in callers else -1] = caller
        for caller in callers.values():
            with contextlib.suppress(OSError):
                print(json.dumps(problem), file=caller, flush=True)
    return problem


def _call(host: str, port: int, processes: Processes, deadline: float) -> str:
    """The others: tell process 0 their number, and what it answers."""
    error: Exception = TimeoutError("timed out")
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection((host, port), timeout=left) as line, line.makefile("rw") as file:
                print(processes.process_id, processes.num_processes, file=file, flush=True)
                line.settimeout(left + ANSWER)
                return str(json.loads(file.readline()))
        except (OSError, ValueError) as found:
            error = found
            time.sleep(0.2)
    return f"--coordinator {processes.coordinator} does not answer within {processes.join_seconds} s: {error}"


def is_first() -> bool:
    """Whether this is the process that prints and writes."""
    return jax.process_index() == 0


def _watch(what: str, seconds: float) -> threading.Timer:
    """A timer that ends this process, and says that it took too long to do this, and where it stands."""
    told = f"error: process {jax.process_index()} of {jax.process_count()} took more than {seconds:.0f} s to {what}"

    def end() -> None:
        sys.stdout.flush()
        print(f"{told}, and ends; it is at", file=sys.stderr, flush=True)
        faulthandler.dump_traceback()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    return timer


@contextlib.contextmanager
def within(what: str, step_seconds: float = math.inf) -> Iterator[None]:
    """Ends this process, if it is one of several, where the block takes much longer than the last step took."""
    timer = _watch(what, min(FIRST, STEP + 10 * step_seconds))
    if jax.process_count() > 1:  # which would wait for ever
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


@within("hear from the others")
def largest(value: float) -> float:
    """The largest of the values that the processes have."""
    if jax.process_count() == 1:
        return value
    return float(multihost_utils.process_allgather(np.float32(value)).max())


@within("hear from the others")
def exchange(text: str) -> list[str]:
    """The texts of all processes, in order."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    most = int(largest(len(data) + 1))
    rows = multihost_utils.process_allgather(np.pad(data, (0, most - len(data))))
    return [bytes(row).rstrip(b"\0").decode() for row in rows.reshape(-1, most)]


def together(act: Callable[[], T]) -> T:
    """Calls ``act`` in every process; where it raises in one, all raise that error."""
    error: Exception | None = None
    try:
        result = act()
    except (ValueError, OSError) as found:
        error = found
    for number, problem in enumerate(exchange("" if error is None else f"{type(error).__name__}: {error}")):
        if problem and error is None:
            raise ValueError(f"process {number} of {jax.process_count()} failed: {problem.partition(': ')[2]}")
    if error is not None:
        raise error
    return result


def in_first(act: Callable[[], Any]) -> str:
    """Calls ``act`` in the first process alone, and returns its result in all, as text."""
    return exchange(together(lambda: str(act()) if is_first() else ""))[0]


def check_shared(folder: Path) -> None:
    """Makes the folder, and raises ``ValueError`` in all processes where they do not see the same one."""
    if jax.process_count() == 1:
        return
    mark = folder / SHARED
    in_first(lambda: folder.mkdir(parents=True, exist_ok=True))
    token = in_first(lambda: mark.write_text(str(time.time_ns())) and mark.read_text())
    seen = exchange(token if mark.is_file() and mark.read_text() == token else "")
    if is_first():
        mark.unlink()
    if "" in seen:
        raise ValueError(f"--run-dir and --resume must name a folder that all processes share, got {folder}")


def check_same(what: str, values: dict[str, Any]) -> None:
    """Raises ``ValueError`` in all processes where the values, which JSON can hold, differ from process 0's."""
    first, *others = [json.loads(text) for text in exchange(json.dumps(values))]
    for number, other in enumerate(others, start=1):
        if differing := [name for name in first if other.get(name) != first[name]]:
            pairs = "; ".join(f"{name} {first[name]} and {other.get(name)}" for name in differing)
            raise ValueError(f"{what} must be the same in all processes, got in process 0 and {number}: {pairs}")

"""Measures how two processes share a step: images a second against one process on one core, and the wait for images.

    python -m tests.train.throughput --data npz:photos96.npz

The one has a core to itself; the two share the machine's, a device each. All decode their images in a stream. They take
turns three times, and the medians are compared. Nothing else should run on the machine.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
WARM = 3  # untimed steps


def free_port() -> int:
    """A port of this host that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def work(options: argparse.Namespace) -> None:
    """Trains as one of ``options.work[0]`` processes, number ``options.work[1]``; the first prints what it measured."""
    number, identity, port = options.work
    if number == 1:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import jax

    from train.config import PatchConfig
    from train.data.feed import Feed
    from train.devices import keep_memory
    from train.hosts import Processes, is_first, join
    from train.loop import Run
    from train.tasks import task_of

    keep_memory()  # as the command does
    jax.config.update("jax_num_cpu_devices", 1)
    join(Processes(f"127.0.0.1:{port}", number, identity, join_seconds=120))
    config = PatchConfig(network=options.network, batch_size=options.batch_size, data=options.data)
    source = task_of(config).open(config.data)
    run = Run(config, source)
    run.feed = Feed(source, config, run.layout, streamed=True)
    waited = 0.0

    def timed(batches):
        nonlocal waited
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    train = run.feed.train
    run.feed.train = lambda *place: timed(train(*place))  # the loop's own steps, with a clock at the stream
    for _ in run.train_epoch(0, run.steps - WARM, 1.0):
        pass
    waited, began = 0.0, time.perf_counter()
    for _ in run.train_epoch(1, run.steps - options.steps, 1.0):
        pass
    seconds = time.perf_counter() - began
    run.close()
    if is_first():
        print(json.dumps({"images": options.steps * options.batch_size / seconds, "waiting": waited / seconds}))


def measure(number: int, words: list[str]) -> dict[str, float]:
    """What the first of ``number`` processes measures."""
    port, environment = free_port(), {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.train.throughput", *words, "--work", str(number)]
    started = [
        subprocess.Popen([*command, str(identity), str(port)], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for identity in range(number)
    ]
    told = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"a process of {number} failed")
    found: dict[str, float] = json.loads(told[0].splitlines()[-1])
    return found


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synthetic")
    parser.add_argument("--network", default="cnn")
    parser.add_argument("--batch-size", type=int, default=64, help="of all processes together (64)")
    parser.add_argument("--steps", type=int, default=20, help="that are timed, each time (20)")
    parser.add_argument("--work", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options)
        return
    print(f"load before: {os.getloadavg()[0]:.2f}")
    turns = [(measure(1, sys.argv[1:]), measure(2, sys.argv[1:])) for _ in range(3)]
    one, two = ([each["images"] for each in side] for side in zip(*turns, strict=True))
    print(f"one process on a core: {statistics.median(one):.1f} images/s {[round(each, 1) for each in one]}")
    print(f"two processes: {statistics.median(two):.1f} images/s {[round(each, 1) for each in two]}")
    print(f"ratio: {statistics.median(two) / statistics.median(one):.2f}")
    waits = [f"{max(turn[side]['waiting'] for turn in turns):.1%}" for side in (0, 1)]
    print(f"waiting for images, at most: {waits[0]} of a step alone, {waits[1]} of two processes")


if __name__ == "__main__":
    main()

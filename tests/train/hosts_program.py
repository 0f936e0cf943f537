"""Trains for each of some cases, options of a run in JSON, and prints the losses and collectives of a step.

Called as: CPU_DEVICES CASES [COORDINATOR NUMBER ID]

Beside options a case has its number of ``steps``, and may have ``streamed``, whether images are read for each batch
anew, and folders: ``restore``, of a checkpoint from which it goes on, and ``save``, for one at its end.
"""

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import jax

from tests.train.conftest import small_images
from train.checkpoints import Checkpoints, Place
from train.compare import cast
from train.config import PatchConfig
from train.data import Source, feed
from train.hosts import Processes, is_first, join
from train.loop import Run
from train.step import train_step
from train.tasks.patch import build_network

HEIGHT, WIDTH = 16, 18
SOURCE = Source("small", small_images(40, HEIGHT, WIDTH))


def collectives(run: Run) -> dict[str, list[list[str]]]:
    """By its name, the arrays of each collective operation in the compiled training step."""
    fed = next(run.feed.train(0, 0))
    with jax.set_mesh(run.layout.mesh):
        text = train_step.lower(run.state, fed, 0, run.key, task=run.task).compile().as_text()
    found: dict[str, list[list[str]]] = {}
    for arrays, name in re.findall(r"= (\(?\w+\[.*?) (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(", text):
        found.setdefault(name, []).append(re.findall(r"\w+\[[\d,]*\]", arrays))
    return found


def train(options: dict) -> dict:
    steps = options.pop("steps")
    streamed, restore, save = (options.pop(name, None) for name in ("streamed", "restore", "save"))
    config = PatchConfig(**{"batch_size": 8, "dtype": "float64", **options})
    feed.RESIDENT_BYTES = 0 if streamed else 2**31
    network = build_network(config, HEIGHT, WIDTH)
    with contextlib.ExitStack() as stack:
        stack.enter_context(jax.enable_x64(config.dtype == "float64"))
        run = Run(config, SOURCE, total_steps=steps, network=cast(network, config.dtype))
        stack.callback(run.close)
        if restore:
            checkpoints = Checkpoints(Path(restore), 1)
            run.state, run.place = checkpoints.restore(checkpoints.newest(), run.state)
        losses = list(itertools.islice(losses_of(run), steps))
        if save:
            run.place = Place(run.place.step + steps)
            run.save(Checkpoints(Path(save), 1))
        return {"losses": losses, "collectives": collectives(run), "streamed": run.feed.streamed}


def losses_of(run: Run) -> Iterator[float]:
    """Of each step from the run's place on."""
    begun, first = divmod(run.place.step, run.steps)
    for epoch in itertools.count(begun):
        for scores in run.train_epoch(epoch, first):
            yield float(scores.error[0])
        first = 0


def main() -> None:
    devices, cases, *process = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(devices))
    if process:
        join(Processes(process[0], int(process[1]), int(process[2]), join_seconds=120))
    found = [train(options) for options in json.loads(cases)]
    if is_first():
        print(json.dumps(found))


if __name__ == "__main__":
    main()

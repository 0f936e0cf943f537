"""Trains in float64 for each of some cases, options of a run in JSON, and prints the losses and collectives of a step.

Called as: CPU_DEVICES STEPS CASES [COORDINATOR NUMBER ID]
"""

import itertools
import json
import re
import sys

import jax

from tests.train.conftest import small_images
from train.compare import cast
from train.config import PatchConfig
from train.data import Source
from train.hosts import Processes, is_first, join
from train.loop import Run
from train.step import train_step
from train.tasks.patch import build_network

HEIGHT, WIDTH = 16, 18


def collectives(run: Run) -> dict[str, list[list[str]]]:
    """By its name, the arrays of each collective operation in the compiled training step."""
    fed = next(run.feed.train(0, 0))
    with jax.set_mesh(run.layout.mesh):
        text = train_step.lower(run.state, fed, 0, run.key, task=run.task).compile().as_text()
    found: dict[str, list[list[str]]] = {}
    for arrays, name in re.findall(r"= (\(?\w+\[.*?) (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(", text):
        found.setdefault(name, []).append(re.findall(r"\w+\[[\d,]*\]", arrays))
    return found


def train(options: dict, steps: int) -> dict:
    config = PatchConfig(batch_size=8, dtype="float64", **options)
    with jax.enable_x64(False):
        network = build_network(config, HEIGHT, WIDTH)
    source = Source("small", small_images(40, HEIGHT, WIDTH))
    run = Run(config, source, total_steps=steps, network=cast(network, "float64"))
    blocks = (scores for epoch in itertools.count() for scores in run.train_epoch(epoch))
    losses = [float(scores.error[0]) for scores in itertools.islice(blocks, steps)]
    return {"losses": losses, "collectives": collectives(run)}


def main() -> None:
    devices, steps, cases, *process = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(devices))
    if process:
        join(Processes(process[0], int(process[1]), int(process[2]), join_seconds=120))
    jax.config.update("jax_enable_x64", True)
    found = [train(options, int(steps)) for options in json.loads(cases)]
    if is_first():
        print(json.dumps(found))


if __name__ == "__main__":
    main()

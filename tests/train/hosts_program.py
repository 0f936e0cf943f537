"""Trains in float64 for each of some cases, options of a run in JSON, and prints the losses of its steps.

Called as: CPU_DEVICES STEPS CASES [COORDINATOR NUMBER ID]
"""

import itertools
import json
import sys

import jax

from tests.train.conftest import small_images
from train.compare import cast
from train.config import PatchConfig
from train.data import Source
from train.hosts import Processes, is_first, join
from train.loop import Run
from train.tasks.patch import build_network

HEIGHT, WIDTH = 16, 18


def losses(options: dict, steps: int) -> list[float]:
    config = PatchConfig(batch_size=8, dtype="float64", **options)
    with jax.enable_x64(False):
        network = build_network(config, HEIGHT, WIDTH)
    source = Source("small", small_images(40, HEIGHT, WIDTH))
    run = Run(config, source, total_steps=steps, network=cast(network, "float64"))
    blocks = (scores for epoch in itertools.count() for scores in run.train_epoch(epoch))
    return [float(scores.error[0]) for scores in itertools.islice(blocks, steps)]


def main() -> None:
    devices, steps, cases, *process = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", int(devices))
    if process:
        join(Processes(process[0], int(process[1]), int(process[2]), join_seconds=120))
    jax.config.update("jax_enable_x64", True)
    found = [losses(options, int(steps)) for options in json.loads(cases)]
    if is_first():
        print(json.dumps(found))


if __name__ == "__main__":
    main()

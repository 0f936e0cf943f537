"""What a step of each network would cost on many devices, by calculation: nothing here is measured.

    python docs/scaling/plan.py --per-device 512

Compiles the training step for `DEVICES` simulated devices, and reads from the program the bytes that its collectives
move. Memory on a device is that of this program too, which is XLA's for CPUs: others keep other temporary arrays.
Operations are those that XLA counts before it optimises. A step on n devices is taken to be

    operations / (SHARE peak) + sum over the collectives of (k (n - 1) / n bytes / bandwidth + k log2(n) latency)

where k is 2 for an all-reduce, which sums pieces and gathers the sums, and 1 for the others; no communication is hidden
behind computation. Efficiency is the first part's share: the time on one device over that on n, each of which
has the same number of images.
"""

import argparse
import itertools
import math
import re

import jax

DEVICES = 8
SHARE = 0.3  # of the peak, reached by convolutions of 32 channels; a guess
COUNTS = (8, 64, 512, 4096)
# Peak in bfloat16, operations/s; bandwidth of a device to the others, bytes/s in each direction; latency, s, a guess.
# docs/scaling.md has the sources. Slices of other TPUs end earlier: of v5e at 256 chips.
MACHINES = {"H100, InfiniBand NDR": (989e12, 50e9, 5e-6), "TPU v5p, ICI": (459e12, 600e9, 1e-6)}
NETWORKS = ["cnn", "conv_attention", "multi_head", "conv_multi_head", "additive", "cbam"]
BYTES = {"f64": 8, "f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}
TIMES = {"all-reduce": 2, "all-gather": 1, "all-to-all": 1, "collective-permute": 1}  # that an array passes a link


def collectives(text: str) -> list[tuple[int, int]]:
    """Of each collective in a compiled program: how often its bytes pass a link, and how many there are."""
    found = []
    for arrays, name in re.findall(r"= (\(?\w+\[.*?) (all-\w+|reduce-scatter|collective-\w+)(?:-start)?\(", text):
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", arrays)
        size = sum(BYTES[dtype] * math.prod(map(int, filter(None, dims.split(",")))) for dtype, dims in shapes)
        found.append((TIMES[name], size))
    return found


def efficiency(
    operations: float, moved: list[tuple[int, int]], count: int, peak: float, bandwidth: float, latency: float
) -> float:
    """The share of the time on ``count`` devices that is computation."""
    alone = operations / (SHARE * peak)
    waited = sum(times * ((count - 1) / count * size / bandwidth + math.log2(count) * latency) for times, size in moved)
    return alone / (alone + waited)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--per-device", type=int, default=128, help="images of 96x96 on each device (128)")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", DEVICES)

    from train.config import PatchConfig
    from train.data import Source
    from train.data.synthetic import synthetic_images
    from train.loop import Run
    from train.step import train_step

    batch = options.per_device * DEVICES
    source = Source("plan", synthetic_images(-(-batch * 5 // 4)))
    heads = [f"{name}: {count}" for name in MACHINES for count in COUNTS]
    first = ["network", "sharding", "GFLOP per image", "MB on a device", "KB in collectives"]
    print(f"| {' | '.join(first + heads)} |")
    print("|---|---|" + "---:|" * (len(first) - 2 + len(heads)))
    for network, sharding in itertools.product(options.networks, ("replicated", "full")):
        config = PatchConfig(network=network, sharding=sharding, batch_size=batch, devices=DEVICES, dtype="bfloat16")
        run = Run(config, source)
        with jax.set_mesh(run.layout.mesh):
            lowered = train_step.lower(run.state, next(run.feed.train(0, 0)), 0, run.key, task=run.task)
        compiled = lowered.compile()
        moved, memory = collectives(compiled.as_text()), compiled.memory_analysis()
        held = memory.temp_size_in_bytes + memory.argument_size_in_bytes - source.size
        operations = lowered.cost_analysis()["flops"]
        shares = [
            efficiency(operations / DEVICES, moved, count, *machine)
            for machine in MACHINES.values()
            for count in COUNTS
        ]
        size = sum(size for _, size in moved) / 1e3
        cells = [f"`{network}`", sharding, f"{operations / batch / 1e9:.2f}", f"{held / 1e6:,.0f}"]
        cells += [f"{size:,.0f} in {len(moved)}", *(f"{share:.0%}" for share in shares)]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

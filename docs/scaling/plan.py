"""What a step of each network would cost on many devices, by calculation: nothing here is measured.

    python docs/scaling/plan.py --per-device 512

Compiles the training step for `DEVICES` simulated devices and reads from the program the bytes that it sums over them
and its memory on each; operations are those that XLA counts before it optimises. A step on n devices is taken to be

    operations / (SHARE peak) + sum over the all-reduces of (2 (n - 1) / n bytes / bandwidth + 2 log2(n) latency)

with no communication hidden behind computation. Efficiency is the first part's share: the time on one device over that
on n, each of which has the same number of images.
"""

import argparse
import math
import re

import jax

DEVICES = 8
SHARE = 0.3  # of the peak, reached by convolutions of 32 channels; a guess
COUNTS = (1, 8, 64, 512, 4096)
# Peak in bfloat16, operations/s; bandwidth of a device to the others, bytes/s in each direction; latency, s.
MACHINES = {
    "H100, InfiniBand NDR": (989e12, 50e9, 5e-6),  # 400 Gb/s per GPU between hosts
    "TPU v5e, ICI": (197e12, 200e9, 1e-6),  # 1,600 Gb/s per chip
}
BYTES = {"f64": 8, "f32": 4, "bf16": 2, "s32": 4, "u32": 4, "pred": 1}


def reduced(text: str) -> list[int]:
    """The bytes of each all-reduce in a compiled program."""
    found = []
    for arrays in re.findall(r"= (\(?\w+\[.*?) all-reduce(?:-start)?\(", text):
        shapes = re.findall(r"(\w+)\[([\d,]*)\]", arrays)
        found.append(sum(BYTES[dtype] * math.prod(map(int, filter(None, dims.split(",")))) for dtype, dims in shapes))
    return found


def efficiency(operations: float, sums: list[int], count: int, peak: float, bandwidth: float, latency: float) -> float:
    """The share of the time on ``count`` devices that is computation."""
    alone = operations / (SHARE * peak)
    steps = 2 * math.log2(count) * latency
    shared = sum(2 * (count - 1) / count * size / bandwidth + steps for size in sums) if count > 1 else 0.0
    return alone / (alone + shared)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["cnn", "cbam", "multi_head", "conv_multi_head"])
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
    heads = [f"{name}: {count}" for name in MACHINES for count in COUNTS[1:]]
    print(f"| network | GFLOP per image | MB on a device | KB summed a step, in sums | {' | '.join(heads)} |")
    print("|---|" + "---:|" * (3 + len(heads)))
    for network in options.networks:
        run = Run(PatchConfig(network=network, batch_size=batch, devices=DEVICES, dtype="bfloat16"), source)
        lowered = train_step.lower(run.state, next(run.feed.train(0, 0)), 0, run.key, task=run.task)
        compiled = lowered.compile()
        sums, memory = reduced(compiled.as_text()), compiled.memory_analysis()
        held = memory.temp_size_in_bytes + memory.argument_size_in_bytes - source.size
        operations = lowered.cost_analysis()["flops"]
        shares = [
            efficiency(operations / DEVICES, sums, count, *machine)
            for machine in MACHINES.values()
            for count in COUNTS[1:]
        ]
        cells = [f"{operations / batch / 1e9:.2f}", f"{held / 1e6:,.0f}", f"{sum(sums) / 1e3:,.0f} in {len(sums)}"]
        print(f"| `{network}` | {' | '.join([*cells, *(f'{share:.0%}' for share in shares)])} |", flush=True)


if __name__ == "__main__":
    main()

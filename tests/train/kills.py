"""Kills runs at random moments and lets them go on: each has to end as the one that nothing happened to.

    python tests/train/kills.py --kills 30

A checkpoint after every step makes many of the kills fall into a save. Prints a line per kill; exit status 1 if a run
ended otherwise.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
TRAIN = [sys.executable, "-m", "train"]


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--network", default="multi_head", help="multi_head has dropout")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        words = first_words(here, options.network)
        seconds = run([*words, "--run-dir", str(here / "whole")])
        same = sum(
            survives(here / str(number), here / "whole", words, moments.uniform(0, seconds))
            for number in range(options.kills)
        )
    print(f"{same} of {options.kills} runs ended as the one that was not killed")
    return 0 if same == options.kills else 1


def first_words(folder: Path, network: str) -> list[str]:
    """The command of a run of seconds: 24 steps, each with a checkpoint."""
    coarse = np.random.default_rng(0).integers(20, 200, (80, 8, 9, 3), np.uint8)
    np.savez(folder / "images.npz", images=coarse.repeat(4, 1).repeat(4, 2))
    data = ["--data", f"npz:{folder / 'images.npz'}", "--network", network]
    return [*TRAIN, *data, "--batch-size", "8", "--epochs", "3", "--save-steps", "1"]


def run(words: list[str]) -> float:
    """Runs a command to its end and says how long it took."""
    began = time.perf_counter()
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - began


def survives(folder: Path, whole: Path, words: list[str], moment: float) -> bool:
    """Starts a run, kills it after ``moment`` seconds, resumes it, and compares it with the whole one."""
    process = subprocess.Popen([*words, "--run-dir", str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    steps = folder / "steps.jsonl"
    reached = len(steps.read_text().splitlines()) if steps.exists() else 0
    saved = [path.name for path in (folder / "checkpoints").glob("*")] if folder.exists() else []
    saving = any("tmp" in name for name in saved)
    newest = max((int(name) for name in saved if name.isdecimal()), default=0)
    begun = (folder / "config.json").exists()
    run([*TRAIN, "--resume", str(folder)] if begun else [*words, "--run-dir", str(folder)])
    same = results(folder) == results(whole)
    state = f"in step {reached + 1}{', while saving' if saving else ''}, newest checkpoint {newest}"
    print(f"killed after {moment:5.2f} s, {state if begun else 'before the folder'}: {'same' if same else 'DIFFERENT'}")
    return same


def results(folder: Path) -> tuple[object, str, bytes]:
    """All that a run leaves and that does not tell the time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    return lines, (folder / "steps.jsonl").read_text(), (folder / "model.safetensors").read_bytes()


if __name__ == "__main__":
    sys.exit(main())

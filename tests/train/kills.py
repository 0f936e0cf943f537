"""Kills runs at random moments and resumes them: each has to end exactly as an undisturbed one.

    python -m tests.train.kills --kills 30

A checkpoint after every step makes many of the kills fall into a save. Prints a line per kill; exit status 1 if any run
ended differently.
"""

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from train.data.synthetic_labelled import synthetic_arrays, synthetic_windows

from ..conftest import ROOT  # it names the compilation cache, too
from .conftest import results, small_images, wait_for

TRAIN = [sys.executable, "-m", "train"]
RECORDS, STEPS = 100, 10  # in an epoch
LATE = 0.1  # seconds after a step, about what one takes with its checkpoint


def main(arguments: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=("patch", "channel", "sensor"), default="patch")
    parser.add_argument("--network", default="multi_head", help="of the patch task; multi_head has dropout")
    parser.add_argument("--epochs", type=int, default=3, help="of a run; each has 10 steps")
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        words = [*first_words(here, options.task, options.network), "--epochs", str(options.epochs)]
        run([*words, "--run-dir", str(here / "whole")])
        found = [
            kill_and_resume(
                here / str(number),
                here / "whole",
                words,
                moments.randrange(options.epochs * STEPS),
                moments.uniform(0, LATE),
            )
            for number in range(options.kills)
        ]
    same, saved, saving = (sum(each) for each in zip(*found, strict=True))
    print(
        f"{same} of {options.kills} runs ended as the undisturbed one; {saved} were killed after a checkpoint, "
        f"{saving} during a save"
    )
    return 0 if same == options.kills else 1


def first_words(folder: Path, task: str, network: str) -> list[str]:
    """The command of a run of seconds, with a checkpoint after each step."""
    own = ["--task", task]
    if task == "patch":
        np.savez(folder / "data.npz", images=small_images(RECORDS))
        own += ["--network", network]
    else:
        inputs, labels, _ = {"channel": synthetic_arrays, "sensor": synthetic_windows}[task](RECORDS)
        np.savez(folder / "data.npz", inputs=inputs, labels=labels)
    data = ["--data", f"npz:{folder / 'data.npz'}"]
    return [*TRAIN, *own, *data, "--batch-size", "8", "--save-steps", "1"]


def run(words: list[str]) -> str | None:
    """Runs a command and returns its output; None, and its errors on the terminal, if it failed."""
    shell = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if shell.returncode:
        print(shell.stderr)
        return None
    return shell.stdout


def kill_and_resume(folder: Path, whole: Path, words: list[str], step: int, later: float) -> tuple[bool, bool, bool]:
    """Starts a run, kills it some time after a step, resumes it, and compares it with the whole one.

    Returns:
        Whether they are the same and only the steps since the last checkpoint were lost, whether there was one, and
        whether one was being saved.
    """
    log = folder / "steps.jsonl"
    process = subprocess.Popen([*words, "--run-dir", str(folder)], cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for(process, lambda: count_lines(log) >= step, every=0.001)
    time.sleep(later)
    process.kill()
    killed = process.wait() == -signal.SIGKILL  # and had not ended before
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    newest = max((int(name) for name in names if name.isdecimal()), default=0)
    saving = any(not name.isdecimal() for name in names)
    begun = (folder / "config.json").exists()
    told = run([*TRAIN, "--resume", str(folder)] if begun else [*words, "--run-dir", str(folder)])
    went_on = re.search(r"continuing after step (\d+)", told or "")
    from_step = int(went_on[1]) if went_on else 0  # later than the newest where that was being replaced
    same = killed and told is not None and from_step >= newest and results(folder) == results(whole)
    state = f"after {step} steps and {later:.3f} s, newest checkpoint {newest}, continued from {from_step}"
    print(f"killed {state}{', during a save' if saving else ''}: {'same' if same else 'DIFFERENT'}", flush=True)
    return same, newest > 0, saving


def count_lines(path: Path) -> int:
    """The number of lines of a file, 0 if there is none."""
    return len(path.read_text().splitlines()) if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())

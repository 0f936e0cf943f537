"""Kills runs at random moments and resumes them: each has to end exactly as an undisturbed one.

    python -m tests.train.kills --kills 30
    python -m tests.train.kills --kills 10 --processes 2    # kills one of them; the others have to end within a minute

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
from .throughput import free_port

TRAIN = [sys.executable, "-m", "train"]
RECORDS, STEPS = 100, 10  # in an epoch
LATE = 0.1  # seconds after a step, about what one takes with its checkpoint
DOWN = 60  # seconds in which the others have to end


def main(arguments: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--task", choices=("patch", "channel", "sensor"), default="patch")
    parser.add_argument("--network", default="multi_head", help="of the patch task; multi_head has dropout")
    parser.add_argument("--epochs", type=int, default=3, help="of a run; each has 10 steps")
    parser.add_argument("--processes", type=int, default=1, help="that train a run together")
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        words = [*first_words(here, options.task, options.network), "--epochs", str(options.epochs)]
        run([*words, "--run-dir", str(here / "whole")], options.processes)
        found = [
            kill_and_resume(
                here / str(number),
                here / "whole",
                words,
                moments.randrange(options.epochs * STEPS),
                moments.uniform(0, LATE),
                options.processes,
                moments.randrange(options.processes),
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


def start(words: list[str], processes: int, **pipes: int) -> list[subprocess.Popen[str]]:
    """Starts the processes of a run."""
    joined: list[list[str]] = [[]]
    if processes > 1:
        common = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", str(processes), "--process-id"]
        joined = [[*common, str(number)] for number in range(processes)]
    return [subprocess.Popen([*words, *more], cwd=ROOT, text=True, **pipes) for more in joined]


def run(words: list[str], processes: int) -> str | None:
    """Runs a command and returns its output; None, and its errors on the terminal, if it failed."""
    started = start(words, processes, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = [process.communicate() for process in started]
    if any(process.returncode for process in started):
        print(*(errors for _, errors in told))
        return None
    return told[0][0]


def kill_and_resume(
    folder: Path, whole: Path, words: list[str], step: int, later: float, processes: int, victim: int
) -> tuple[bool, bool, bool]:
    """Starts a run, kills a process of it some time after a step, resumes it, and compares it with the whole one.

    Returns:
        Whether they are the same and only the steps since the last checkpoint were lost, whether there was one, and
        whether one was being saved.
    """
    log = folder / "steps.jsonl"
    pipes = {"stdout": subprocess.DEVNULL} | ({"stderr": subprocess.DEVNULL} if processes > 1 else {})
    started = start([*words, "--run-dir", str(folder)], processes, **pipes)
    wait_for(started[0], lambda: count_lines(log) >= step, every=0.001)
    time.sleep(later)
    started[victim].kill()
    began = time.monotonic()
    killed = started[victim].wait() == -signal.SIGKILL  # and had not ended before
    ended = [process.wait(timeout=DOWN) != 0 for process in started]
    took = time.monotonic() - began
    names = [path.name for path in (folder / "checkpoints").glob("*")]
    newest = max((int(name) for name in names if name.isdecimal()), default=0)
    saving = any(not name.isdecimal() for name in names)
    begun = (folder / "config.json").exists()
    told = run([*TRAIN, "--resume", str(folder)] if begun else [*words, "--run-dir", str(folder)], processes)
    went_on = re.search(r"continuing after step (\d+)", told or "")
    from_step = int(went_on[1]) if went_on else 0  # later than the newest where that was being replaced
    same = killed and all(ended) and told is not None and from_step >= newest and results(folder) == results(whole)
    state = f"after {step} steps and {later:.3f} s, newest checkpoint {newest}, continued from {from_step}"
    of = f" process {victim}" if processes > 1 else ""
    others = f", the others ended after {took:.0f} s" if processes > 1 else ""
    print(
        f"killed{of} {state}{others}{', during a save' if saving else ''}: {'same' if same else 'DIFFERENT'}",
        flush=True,
    )
    return same, newest > 0, saving


def count_lines(path: Path) -> int:
    """The number of lines of a file, 0 if there is none."""
    return len(path.read_text().splitlines()) if path.exists() else 0


if __name__ == "__main__":
    sys.exit(main())

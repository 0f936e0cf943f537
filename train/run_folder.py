"""The folder of a run: what was asked for, what came of it, epoch by epoch."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path

from .config import Config
from .metrics import EpochMetrics


class RunFolder:
    """Writes ``config.json`` at once and a line of ``metrics.jsonl`` per epoch.

    Attributes:
        path: the folder.

    Raises:
        ValueError: the folder cannot be made, or holds something already.
    """

    def __init__(self, config: Config) -> None:
        self.path = check_run_dir(config)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / "config.json").write_text(json.dumps(dataclasses.asdict(config), indent=2) + "\n")
        except OSError as error:
            raise ValueError(f"--run-dir must be a folder that can be written to, got {self.path}: {error}") from error

    def add(self, metrics: EpochMetrics) -> None:
        """Appends an epoch; a run that is broken off keeps what it has."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(dataclasses.asdict(metrics)) + "\n")


def check_run_dir(config: Config) -> Path:
    """The folder that ``config`` names, or a new one's name.

    Raises:
        ValueError: there is a file of that name, or a folder that holds something.
    """
    if config.run_dir is None:
        return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{config.network}"
    if not config.run_dir:
        raise ValueError("--run-dir must name a folder, got ''")
    path = Path(config.run_dir)
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise ValueError(f"--run-dir must be a folder that can be written to, got {path}: {error}") from error
    if taken:
        raise ValueError(f"--run-dir must be new or an empty folder, got {path}, which is there already")
    return path

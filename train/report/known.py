"""Runs that other reports hold, made on other machines or in folders that are gone: they need not be done again."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .options import Options
from .outcomes import Outcome, from_json
from .plan import Key

SAME = ("epochs", "article_epochs", "batch_size", "learning_rate")  # or they cannot stand in one table


@dataclass(frozen=True)
class Known:
    """What the files of ``--known`` hold.

    Attributes:
        outcomes: of runs that several hold, the last one's.
        images: on which, as in a run's ``data.json``; None without any file.
    """

    outcomes: dict[Key, Outcome]
    images: dict[str, Any] | None

    def check_images(self, images: dict[str, Any]) -> None:
        """Raises ``ValueError`` where the runs were made on other images than these."""
        there = images if self.images is None else self.images
        differing = [
            f"{name} {there.get(name)} there, {here} here" for name, here in images.items() if here != there.get(name)
        ]
        if differing:
            raise ValueError(f"--known must name reports on the same images, got others: {'; '.join(differing)}")


def read_known(options: Options) -> Known:
    """Reads the files.

    Args:
        options: of the report that they are to be part of.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that holds no report, or one with other options or images than the first one's.
    """
    known = Known({}, None)
    for file in (Path(os.path.expanduser(name)) for name in options.known):  # a home that nobody has stays
        try:
            report = from_json(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"--known must name the results.json of a report, got {file}: {error}") from error
        here, there = ({name: values.get(name) for name in SAME} for values in (vars(options), report.options))
        differing = [f"{name} is {there[name]} there, {here[name]} here" for name in SAME if there[name] != here[name]]
        if differing:
            raise ValueError(f"--known must name reports with the same options, got {file}: {'; '.join(differing)}")
        known.check_images(report.images)
        known = Known(known.outcomes | {run.key: run for run in report.outcomes}, report.images)
    return known

"""Writes a report: the page, its figure and its numbers."""

from pathlib import Path

from ..run_folder import write_whole
from .outcomes import Report, to_json
from .page import page
from .picture import save_picture

PAGE, PICTURE, NUMBERS = "results.md", "results.png", "results.json"


def write_report(folder: Path, report: Report) -> list[Path]:
    """Writes all three; returns their paths.

    Raises:
        OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / NUMBERS, to_json(report))
    save_picture(folder / PICTURE, report)
    write_whole(folder / PAGE, page(report, picture=PICTURE))
    return [folder / name for name in (PAGE, PICTURE, NUMBERS)]

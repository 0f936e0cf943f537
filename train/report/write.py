"""Writes a report: the page, its figure and its numbers."""

import re
from pathlib import Path

from ..runs import write_whole
from .outcomes import Report, to_json
from .page import introduction, page
from .picture import save_picture
from .tables import short_table

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
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


def write_docs(report: Report, root: Path | None = None) -> list[Path]:
    """Writes all three into a checkout's ``docs``, and README's table; returns their paths.

    Raises:
        ValueError: the README lacks its marks; nothing is written then.
        OSError: a file cannot be written.
    """
    root = root or ROOT
    text = readme(report, (root / "README.md").read_text(encoding="utf-8"))
    paths = write_report(root / "docs", report)
    write_whole(root / "README.md", text)
    return [*paths, root / "README.md"]


def readme(report: Report, text: str) -> str:
    """A README with its table written anew.

    Raises:
        ValueError: it lacks its marks.
    """
    between = re.compile(f"{BEGIN}.*{END}", flags=re.DOTALL)
    if not between.search(text):
        raise ValueError(f"README.md must hold {BEGIN} and {END}, got neither or one")
    return between.sub(lambda _: f"{BEGIN}\n{short_table(report)}\n\n{introduction(report)}\n{END}", text)

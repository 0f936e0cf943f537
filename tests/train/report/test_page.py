"""Means, spreads, tables, the figure, and the results in the documentation."""

from pathlib import Path

import numpy as np
import pytest

from train.report.outcomes import read_report
from train.report.page import (
    COLUMNS,
    by_chance,
    distance,
    draw,
    is_untrained,
    map_table,
    results_table,
    sections,
    twin_table,
    write_report,
)

from .conftest import outcome, report

DOCS = Path(__file__).parents[3] / "docs"
MARKS = ["runs", *(f"{kind} {of}" for kind in ("results", "twins", "maps") for of in ("per_image", "article"))]
EMPTY = "# Mine\n" + "".join(f"<!-- {mark}: begin -->\nold\n<!-- {mark}: end -->\nwords\n" for mark in MARKS)


def lines_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_figures_have_the_deviation_of_a_sample():
    error, accuracy = COLUMNS[2], COLUMNS[3]
    assert error.of([outcome("cnn", value) for value in (2.0, 4.0, 9.0)]) == "5 ± 3.61"  # the root of 13
    assert accuracy.of([outcome("cnn", 1, accuracy=value) for value in (0.2, 0.4, 0.9)]) == "0.500 ± 0.361"
    assert (error.of([outcome("cnn", 2.0)]), error.of([])) == ("2", "")
    assert COLUMNS[4].of([outcome("cnn", 1, pointing=None), outcome("cnn", 1, pointing=0.25)]) == "0.250"


def test_a_row_of_results():
    runs = report(outcome("cnn", 0.2, pointing=0.8), outcome("cnn", 0.4, seed=1, pointing=1.0))
    heads, lines = results_table(runs, "per_image")
    assert heads[:5] == ["network", "parameters", "min train error", "min test error", "test accuracy"]
    assert heads[5:] == ["pointing game", "images/s", "seeds"]
    assert lines == [["`cnn`", "53,857", "0.11", "0.3 ± 0.141", "0.970", "0.900 ± 0.141", "123", "2"]]


def test_distance_is_in_standard_deviations_of_both_sides():
    ours = [outcome("cnn", error) for error in (0.1, 0.3)]  # variance 0.02
    theirs = [outcome("cnn", error, side="pytorch") for error in (0.5, 0.9)]  # variance 0.08
    assert distance(ours, theirs) == "-2.24 sd"  # -0.5 / the root of 0.05
    assert distance(ours[:1], theirs[:1]) == ""
    assert distance(ours[:1] * 2, ours[1:] * 2) == ""


def test_ours_beside_pytorchs():
    sides = {"ours": (1, 2), "pytorch": (1, 3)}
    runs = [
        outcome("cnn", error, side=side, seed=n) for side, errors in sides.items() for n, error in enumerate(errors)
    ]
    alone = outcome("cnn", 9, seed=7), outcome("cbam", 0.1)  # without a twin
    _, (line,) = twin_table(report(*runs, *alone), "per_image")
    assert line[:5] == ["`cnn`", "2", "1.5 ± 0.707", "2 ± 1.41", "-0.45 sd"]


def test_every_map_has_its_line():
    runs = report(outcome("cnn", 0.1), outcome("multi_head-sine", 0.1, **{"attn1.attention.weights": 0.25}))
    _, lines = map_table(runs, "per_image")
    assert [line[:2] for line in lines] == [
        ["`cnn`: class activation", "0.900"],
        ["`multi_head-sine`: class activation", "0.900"],
        ["`multi_head-sine`: `attn1.attention.weights`", "0.250"],
    ]


def test_a_report_comes_back_from_json(tmp_path):
    made, file = report(outcome("cnn", 0.2), outcome("cbam", 0.1, side="pytorch")), tmp_path / "results.json"
    write_report(made, tmp_path)
    assert read_report(file) == made
    file.write_text('{"outcomes": [{}]}')
    with pytest.raises(ValueError, match=r"expected the results.json of a report, got .*results.json"):
        read_report(file)


def test_the_page_says_what_was_run_and_what_is_missing():
    runs = outcome("cnn", 0.2), outcome("cnn", 0.3, protocol="article")
    parts = sections(report(*runs, planned=9, failed=["per_image/cbam/ours/seed-0"]))
    assert parts["runs"].splitlines() == [
        "- command: `python -m train report --data npz:photos.npz --epochs 2`",
        "- runs: 2 of 9, in 0 h 02 min",
        "- failed: per_image/cbam/ours/seed-0",
        "- images: 50 of 32x36: 40 training, 10 test",
        "- machines: a processor; jax 1.2.3",
    ]
    assert list(parts) == MARKS
    assert parts["twins article"] == "No runs yet."


def test_the_documentation_has_the_tables_of_the_kept_numbers():
    text = (DOCS / "results.md").read_text()
    for mark, part in sections(read_report(DOCS / "results.json")).items():
        expected = f"<!-- {mark}: begin -->\n{part}\n<!-- {mark}: end -->"
        assert expected in text, "run `python -m train report --no-train --out docs`"


def test_of_a_page_with_marks_only_the_tables_are_replaced(tmp_path):
    (tmp_path / "results.md").write_text(EMPTY)
    write_report(report(outcome("cnn", 0.2)), tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| `cnn` |" in text
    assert text.startswith("# Mine\n")
    assert text.count("\nwords\n") == len(MARKS)
    assert "old" not in text


@pytest.mark.parametrize("before", [None, "# A page of an earlier version\n"])
def test_a_page_without_marks_is_made_anew(tmp_path, before):
    if before is not None:
        (tmp_path / "results.md").write_text(before)
    for smallest in (0.2, 0.3):
        write_report(report(outcome("cnn", smallest)), tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert text.startswith("# Results\n\n![errors, accuracy and pointing game](results.png)\n\n## runs\n")
    assert "| 0.3 |" in text
    assert "| 0.2 |" not in text


def test_a_page_without_one_of_the_marks_is_left_alone(tmp_path):
    text = EMPTY.replace("<!-- maps article: end -->", "")
    (tmp_path / "results.md").write_text(text)
    with pytest.raises(ValueError, match=r"results.md must contain <!-- maps article: begin --> and"):
        write_report(report(outcome("cnn", 0.2)), tmp_path)
    assert (tmp_path / "results.md").read_text() == text


def test_the_bound_for_chance_is_the_binomial_one():
    runs = [outcome("cnn", 0.2, accuracy=right / 100) for right in range(101)]  # 48 of 100 images have a patch
    assert by_chance(runs[0]) == 0.52
    untrained = [is_untrained(run) for run in runs]
    assert untrained == sorted(untrained, reverse=True)
    drawn = np.random.default_rng(0).binomial(100, 0.52, 100_000)
    assert 0.005 < np.mean(drawn >= untrained.index(False)) < 0.015


def test_rows_at_chance_are_marked():
    learned, lucky = outcome("cnn", 0.2, accuracy=0.97), outcome("cbam", 0.2, accuracy=0.6, pointing=1.0)
    twin = outcome("cnn", 0.2, accuracy=0.5, side="pytorch")
    parts = sections(report(learned, lucky, twin))
    firsts = {mark: [line[0] for line in lines_of(part)[2:]] for mark, part in parts.items() if mark != "runs"}
    assert firsts["results per_image"] == ["`cnn`", "`cbam` †"]
    assert firsts["twins per_image"] == ["`cnn` †"]
    assert firsts["maps per_image"] == ["`cnn`: class activation", "`cbam` †: class activation"]
    assert "- †: the test accuracy of at least one seed cannot be told from that of always giving" in parts["runs"]
    assert "†" not in "".join(sections(report(learned)).values())


def test_one_seed_at_chance_marks_its_row():
    runs = [outcome("cnn", 0.2, accuracy=accuracy, seed=seed) for seed, accuracy in enumerate((0.99, 0.99, 0.53))]
    assert results_table(report(*runs), "per_image")[1][0][0] == "`cnn` †"


def test_the_figure_shows_every_run_where_its_figures_are():
    runs = report(
        outcome("cnn", 0.2, pointing=0.7, accuracy=0.9),
        outcome("cnn", 0.3, side="pytorch", pointing=0.6, accuracy=0.8),
        outcome("cbam", 0.1, protocol="article", pointing=0.5, accuracy=0.75),
    )
    figure = draw(runs)
    shown = [{value for line in ax.lines for value in line.get_xdata()} for ax in figure.axes]
    chance, pointing = 0.52, 16 * 16 / (32 * 36)
    assert shown == [{0.2, 0.3}, {0.9, 0.8, chance}, {0.7, 0.6, pointing}, {0.1}, {0.75, chance}, {0.5, pointing}]
    for column, values in enumerate(((0.1, 0.3), (0.52, 0.9), (16 * 16 / (32 * 36), 0.7))):
        above, below = figure.axes[column], figure.axes[column + 3]
        assert above.get_xlim() == below.get_xlim()
        assert above.get_xlim()[0] < values[0] < values[1] < above.get_xlim()[1]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["cnn", "cbam"]

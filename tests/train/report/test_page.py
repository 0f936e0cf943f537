"""Means, spreads, tables, the figure, and the results in the documentation."""

import json
from pathlib import Path

import pytest

from train.report.page import (
    COLUMNS,
    distance,
    draw,
    map_table,
    results_table,
    sections,
    twin_table,
    write_report,
)
from train.report.runs import read_report

from .conftest import outcome, report

DOCS = Path(__file__).parents[3] / "docs"
MARKS = ["runs", *(f"{kind} {of}" for kind in ("results", "twins", "maps") for of in ("per_image", "article"))]
EMPTY = "# Mine\n" + "".join(f"<!-- {mark}: begin -->\nold\n<!-- {mark}: end -->\nwords\n" for mark in MARKS)


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
    assert line[:4] == ["`cnn`", "2", "1.5 ± 0.707", "2 ± 1.41"]
    assert line[-1] == "-0.45 sd"


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
    values = json.loads(file.read_text())
    values["outcomes"][0]["seconds"] = 61.0  # as an earlier version wrote
    file.write_text(json.dumps(values))
    assert read_report(file) == made


def test_the_page_says_what_was_run():
    parts = sections(report(outcome("cnn", 0.2), outcome("cnn", 0.3, protocol="article")))
    assert parts["runs"].splitlines() == [
        "- command: `python -m train report --data npz:photos.npz --epochs 2 --batch-size 10 --learning-rate 0.001`",
        "- runs: 2",
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


def test_a_page_is_made_and_brought_up_to_date(tmp_path):
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


def test_the_figure_shows_every_run_where_its_figures_are():
    runs = report(
        outcome("cnn", 0.2, pointing=0.7, accuracy=0.9),
        outcome("cnn", 0.3, side="pytorch", pointing=0.6, accuracy=0.8),
        outcome("cbam", 0.1, protocol="article", pointing=0.5, accuracy=0.75),
    )
    figure = draw(runs)
    shown = [{value for line in ax.lines for value in line.get_xdata()} for ax in figure.axes]
    pointing = 16 * 16 / (32 * 36)
    assert shown == [{0.2, 0.3}, {0.9, 0.8}, {0.7, 0.6, pointing}, {0.1}, {0.75}, {0.5, pointing}]
    for column, values in enumerate(((0.1, 0.3), (0.75, 0.9), (16 * 16 / (32 * 36), 0.7))):
        above, below = figure.axes[column], figure.axes[column + 3]
        assert above.get_xlim() == below.get_xlim()
        assert above.get_xlim()[0] < values[0] < values[1] < above.get_xlim()[1]
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["cnn", "cbam"]

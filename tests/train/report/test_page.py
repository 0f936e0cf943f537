"""Means, spreads, tables, the figure, and the results in the documentation."""

import dataclasses
import itertools
import json
import statistics
from pathlib import Path

import pytest
from matplotlib.text import Text

from train.report.page import (
    COLUMNS,
    board_table,
    distance,
    draw,
    leaderboard,
    map_table,
    results_table,
    sections,
    twin_table,
    write_report,
)
from train.report.runs import ROWS, read_report

from .conftest import cost, outcome, report

DOCS = Path(__file__).parents[3] / "docs"
MARKS = ["results article", *(f"{kind} {of}" for kind in ("twins", "maps") for of in ("per_image", "article"))]
EMPTY = "# Mine\n" + "".join(f"<!-- {mark}: begin -->\nold\n<!-- {mark}: end -->\nwords\n" for mark in MARKS)


def test_figures_have_the_deviation_of_a_sample():
    error, accuracy = COLUMNS[2], COLUMNS[3]
    assert error.of([outcome("cnn", value) for value in (2.0, 4.0, 9.0)]) == "5 ± 3.61"  # the root of 13
    assert accuracy.of([outcome("cnn", 1, accuracy=value) for value in (0.2, 0.4, 0.9)]) == "0.500 ± 0.361"
    assert (error.of([outcome("cnn", 2.0)]), error.of([])) == ("2", "")
    assert COLUMNS[4].of([outcome("cnn", 1, pointing=None), outcome("cnn", 1, pointing=0.25)]) == "0.250"


def test_a_row_of_results():
    runs = report(*(outcome("cnn", 0.2 * n, protocol="article", seed=n, pointing=0.6 + 0.2 * n) for n in (1, 2)))
    heads, lines = results_table(runs, "article")
    assert heads[:5] == ["network", "parameters", "min train error", "min test error", "test accuracy"]
    assert heads[5:] == ["pointing game", "seeds"]
    assert lines == [["`cnn`", "53,857", "0.11", "0.3 ± 0.141", "0.970", "0.900 ± 0.141", "2"]]


def test_the_leaderboard_begins_with_the_smallest_mean_error():
    runs = [outcome("cnn", 0.4), outcome("eca", 0.1, seed=0), outcome("eca", 0.5, seed=1), outcome("cbam", 0.2)]
    others = outcome("bam", 0.01, side="pytorch"), outcome("gct", 0.01, protocol="article")
    heads, lines = board_table(report(*runs, *others, costs=[cost("eca"), cost("gct")]))
    assert heads[2:] == [
        *("min test error", "test accuracy", "pointing game", "parameters"),
        *("multiply-adds, M", "step, ms", "memory, MiB", "seeds"),
    ]
    assert [line[:3] for line in lines] == [
        ["1", "`cbam`", "0.2"],
        ["2", "`eca`", "0.3 ± 0.283"],
        ["3", "`cnn`", "0.4"],
    ]
    assert [line[6:] for line in lines] == [["", "", "", "1"], ["92.81", "39.0", "88.0", "2"], ["", "", "", "1"]]


def test_the_leaderboard_says_where_costs_were_measured():
    runs = report(outcome("cnn", 0.2))
    assert leaderboard(runs)["runs"].endswith("\n- costs: not measured yet")
    runs.costs.extend([cost("cnn"), cost("cbam")])
    assert leaderboard(runs)["runs"].endswith("\n- costs: a processor; jax 1.2.3; a step on 2 JAX devices")


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
    made, file = (
        report(outcome("cnn", 0.2), outcome("cbam", 0.1, side="pytorch"), costs=[cost("cnn")]),
        tmp_path / "results.json",
    )
    write_report(made, tmp_path)
    assert read_report(file) == made
    values = json.loads(file.read_text())
    values["outcomes"][0]["seconds"] = 61.0  # as an earlier version wrote
    del values["costs"]
    file.write_text(json.dumps(values))
    assert read_report(file) == dataclasses.replace(made, costs=[])


def test_the_page_says_what_was_run():
    runs = report(outcome("cnn", 0.2), outcome("cnn", 0.3, protocol="article"))
    assert leaderboard(runs)["runs"].splitlines()[:-1] == [
        "- command: `python -m train report --data npz:photos.npz --epochs 2 --batch-size 10 --learning-rate 0.001`",
        "- runs: 2",
        "- images: 50 of 32x36: 40 training, 10 test",
        "- machines: a processor; jax 1.2.3",
    ]
    parts = sections(runs)
    assert list(parts) == MARKS
    assert parts["twins article"] == "No runs yet."


def test_the_documentation_has_the_tables_of_the_kept_numbers():
    kept = read_report(DOCS / "results.json")
    parts = [("results.md", *part) for part in sections(kept).items()]
    parts += [("leaderboard.md", *part) for part in leaderboard(kept).items()]
    for page, mark, part in parts:
        expected = f"<!-- {mark}: begin -->\n{part}\n<!-- {mark}: end -->"
        assert expected in (DOCS / page).read_text(), "run `python -m train report --no-train --out docs`"


def test_of_a_page_with_marks_only_the_tables_are_replaced(tmp_path):
    (tmp_path / "results.md").write_text(EMPTY)
    write_report(report(outcome("cnn", 0.2, protocol="article")), tmp_path)
    text = (tmp_path / "results.md").read_text()
    assert "| `cnn` |" in text
    assert text.startswith("# Mine\n")
    assert text.count("\nwords\n") == len(MARKS)
    assert "old" not in text


def test_a_page_is_made_and_brought_up_to_date(tmp_path):
    for smallest in (0.2, 0.3):
        write_report(report(outcome("cnn", smallest)), tmp_path)
    assert (tmp_path / "results.md").read_text().startswith("# Results\n\n## results article\n")
    text = (tmp_path / "leaderboard.md").read_text()
    assert text.startswith("# Leaderboard\n\n## runs\n")
    assert "](leaderboard.png)" in text
    assert "| 0.3 |" in text
    assert "| 0.2 |" not in text


def test_a_page_without_one_of_the_marks_is_left_alone(tmp_path):
    text = EMPTY.replace("<!-- maps article: end -->", "")
    (tmp_path / "results.md").write_text(text)
    with pytest.raises(ValueError, match=r"results.md must contain <!-- maps article: begin --> and"):
        write_report(report(outcome("cnn", 0.2)), tmp_path)
    assert (tmp_path / "results.md").read_text() == text


def boxes_of(figure):
    figure.draw_without_rendering()
    # Of the names alone: those of annotations have their lines too.
    return [Text.get_window_extent(text) for text in figure.axes[0].texts]


def test_the_figure_has_a_dot_for_every_row_with_a_result_and_a_cost():
    runs = [outcome("cnn", 0.3), outcome("cbam", 0.1), outcome("cbam", 0.2, seed=1), outcome("eca", 0.25)]
    others = outcome("cbam", 9, side="pytorch"), outcome("bam", 0.2)
    costs = [cost("cnn", 90e6), cost("cbam", 92e6), cost("eca", 90.5e6), cost("gct", 99e6)]
    (ax,) = draw(report(*runs, *others, costs=costs)).axes
    dots, line = ax.lines
    assert sorted(zip(*dots.get_data(), strict=True)) == [(0.5, 0.25), (2, statistics.fmean([0.1, 0.2]))]
    assert set(line.get_ydata()) == {0.3}
    assert [text.get_text() for text in ax.texts] == ["cbam", "eca"]


def test_names_in_the_figure_do_not_overlap():
    """Though all dots are at nearly one place."""
    rows = list(ROWS)
    runs = [outcome(row, 0.1 + 0.0001 * n) for n, row in enumerate(rows)]
    costs = [cost(row, 1e6 + 2000 * n) for n, row in enumerate(rows)]
    boxes = boxes_of(draw(report(*runs, outcome("bam", 0.9), costs=costs)))
    assert len(boxes) == len(rows) - 1
    assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]


def test_without_costs_the_figure_is_empty():
    """Also without those of the CNN, to which the others add theirs."""
    for costs in ([], [cost("cbam")]):
        (ax,) = draw(report(outcome("cbam", 0.1), outcome("cnn", 0.2), costs=costs)).axes
        assert not ax.texts
        assert not ax.lines

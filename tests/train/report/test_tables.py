"""Means, spreads and tables of outcomes."""

import math

import numpy as np
import pytest

from flax_attn.testing import relative_error, tolerance
from train.report.outcomes import Spread, from_json, spread, to_json
from train.report.tables import distance, map_table, results_table, twin_table

from .made import outcome, report


def lines_of(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_spread_is_that_of_a_sample():
    assert spread([2.0, 4.0, 9.0]) == Spread(5.0, math.sqrt(13), 3)
    assert spread([2.0]) == Spread(2.0, None, 1)
    assert spread([None]) is None


def test_a_row_of_results():
    table = results_table(
        report(outcome("cnn", 0.2, pointing=0.8), outcome("cnn", 0.4, seed=1, pointing=1.0)), "per_image"
    )
    heads, _, *lines = lines_of(table)
    assert heads[:5] == ["network", "parameters", "min train error", "min test error", "test accuracy"]
    assert heads[5:] == ["pointing game", "images/s", "seeds"]
    assert lines == [["CNN alone", "53,857", "0.110 ± 0", "0.30 ± 0.14", "0.970 ± 0.000", "0.900 ± 0.141", "123", "2"]]


def test_what_the_tutorial_printed_stands_beside_its_own_protocol():
    runs = report(outcome("cbam", 0.2, protocol="article"), outcome("cbam_spatial", 0.3, protocol="article"))
    heads, _, *lines = lines_of(results_table(runs, "article"))
    assert heads[-2:] == ["tutorial: min train error", "min test error"]
    assert [line[-2:] for line in lines] == [["2.79e-05", "0.028"], ["", ""]]


def test_distance_is_in_standard_deviations_of_both_sides():
    ours = [outcome("cnn", error) for error in (0.1, 0.3)]  # variance 0.02
    theirs = [outcome("cnn", error, side="pytorch") for error in (0.5, 0.9)]  # variance 0.08
    apart = np.array(distance(ours, theirs))
    assert relative_error(apart, np.array(-0.5 / math.sqrt(0.05))) <= tolerance("output", "float64")
    assert distance(ours, theirs[:1]) is None
    assert distance(ours[:1] * 2, ours[1:] * 2) == -math.inf
    assert distance(ours[:1] * 2, ours[:1] * 2) == 0


def test_ours_beside_pytorchs():
    sides = {"ours": (1, 2), "pytorch": (1, 3)}
    runs = [
        outcome("cnn", error, side=side, seed=n) for side, errors in sides.items() for n, error in enumerate(errors)
    ]
    alone = outcome("cnn", 9, seed=7), outcome("cbam", 0.1)  # without a twin
    _, _, line = lines_of(twin_table(report(*runs, *alone), "per_image"))
    assert line[:5] == ["CNN alone", "2", "1.50 ± 0.71", "2.0 ± 1.4", "-0.45 sd"]


def test_every_map_has_its_line():
    runs = report(outcome("cnn", 0.1), outcome("multi_head-sine", 0.1, **{"attn1.attention.weights": 0.25}))
    _, _, *lines = lines_of(map_table(runs, "per_image"))
    assert [line[1:3] for line in lines] == [
        ["class activation", "0.900"],
        ["class activation", "0.900"],
        ["`attn1.attention.weights`", "0.250"],
    ]


def test_a_report_comes_back_from_json():
    made = report(outcome("cnn", 0.2), outcome("cbam", 0.1, side="pytorch"))
    assert from_json(to_json(made)) == made
    with pytest.raises(ValueError, match="must be a report as JSON"):
        from_json('{"outcomes": [{}]}')

"""A parity run: what it holds, what counts as a problem, and JSON there and back."""

import math
from dataclasses import replace

import pytest

from flax_attn.testing import Row, tolerances
from flax_attn.testing.tolerances import QUANTITIES, TRAINED
from torch_ref.pairs import find_cases
from torch_ref.report.run import CaseResult, Options, from_json, run_cases, to_json


def row(error, torch_error=1.0, dtype="float32", quantity="output", limit=2.0):
    return Row(quantity, "output", "eval", dtype, error, torch_error, limit)


def result(name, *rows, **ratios):
    return CaseResult(name, 1.0, ratios, "", list(rows))


def test_a_run_compares_everything(run):
    pointwise = run.cases[1]
    shown = {(row.dtype, row.mode, row.quantity) for row in pointwise.rows}
    expected = {
        (dtype, mode, quantity)
        for dtype in ("float64", "bfloat16")
        for mode in ("train", "eval")
        for quantity in QUANTITIES
        if quantity != "buffer"  # without a norm there is none
    }
    trained = {("float64", name, quantity) for name in ("sgd", "adam", "adamw") for quantity in TRAINED[:2]}
    assert shown == expected | trained
    assert run.problems() == []
    assert not run.is_complete


def test_json_there_and_back(run):
    assert from_json(to_json(run)) == run


def test_non_finite_numbers_survive_json(run):
    cases = [result("CBAM", row(math.nan), row(math.inf), float32=math.nan)]
    text = to_json(replace(run, cases=cases))
    back = from_json(text)
    assert [str(row.error) for row in back.cases[0].rows] == ["nan", "inf"]
    assert math.isnan(back.cases[0].ratios["float32"])


@pytest.mark.parametrize("text", ["{}", "[]", '{"cases": [{}]}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="text must be a parity run"):
        from_json(text)


def test_a_summary_keeps_the_worst(run):
    summary = run.summary()
    for case, whole in zip(summary.cases, run.cases, strict=True):
        keys = [(row.dtype, row.quantity) for row in case.rows]
        assert len(keys) == len(set(keys)) < len(whole.rows)
        for dtype, quantity in keys:
            assert case.worst(dtype, [quantity]).error == whole.worst(dtype, [quantity]).error
            assert case.torch_worst(dtype, [quantity]) == whole.torch_worst(dtype, [quantity])


def test_nan_is_the_worst():
    assert math.isnan(result("CBAM", row(math.inf), row(math.nan), row(1.0)).worst("float32").error)


def test_problems_name_what_exceeds_its_limit(run):
    limit = tolerances.RATIOS["float32"][1]
    cases = [result("CBAM", row(3.0), float32=limit + 1), result("Net", row(math.nan), float32=1.0)]
    problems = replace(run, cases=cases).problems()
    assert len(problems) == 3
    assert problems[0].startswith("CBAM: FAIL float32 eval")
    assert problems[1].startswith("Net: FAIL")
    assert problems[2] == f"CBAM: float32 error is {limit + 1:.2f} times PyTorch's own, expected at most {limit}"


def test_the_mean_is_geometric_and_limited_for_complete_runs_only(run):
    cases = [result("CBAM", float32=4.0), result("Net", float32=1.0)]
    some = replace(run, cases=cases)
    assert some.mean_ratio("float32") == 2.0
    assert math.isnan(some.mean_ratio("bfloat16"))
    some = replace(run, cases=[*cases, result("ConvPart", float32=1e-4)])
    assert some.median_ratio("float32") == 1.0
    assert math.isnan(some.median_ratio("bfloat16"))
    assert all("mean " not in problem for problem in some.problems())


def test_the_mean_of_all_cases_is_a_problem_above_its_limit(run):
    from torch_ref.cases import CASES

    cases = [result(case.name, row(0.0), float32=1.5) for case in CASES]
    assert replace(run, cases=cases).problems() == [
        "mean float32 error is 1.50 times PyTorch's own, expected at most 1.0"
    ]


def test_options_default_to_everything():
    assert Options() == Options(("float64", "float32", "bfloat16"), 100, "highest", 0)


@pytest.mark.nightly
def test_two_processes_give_the_results_of_one(run):
    finished = []
    again = run_cases(find_cases([case.name for case in run.cases]), run.options, 2, finished.append)
    assert finished == [case.name for case in run.cases]
    assert [case.rows for case in again.cases] == [case.rows for case in run.cases]

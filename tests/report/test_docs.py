"""The figures in the documentation are those of the runs that are kept, and these are of today's cases."""

from dataclasses import replace

import pytest

from flax_attn.testing.tolerances import tolerance
from torch_ref.cases import CASES
from torch_ref.report.docs import README_RUN, ROOT, kept_runs, parity_page, readme, stale, write_docs
from torch_ref.report.run import Options

RENEW = "stale: run `python -m torch_ref parity --docs`"


def test_the_pages_are_made_from_the_kept_runs():
    assert (ROOT / "README.md").read_text() == readme(), RENEW
    assert (ROOT / "docs" / "parity.md").read_text() == parity_page(kept_runs()), RENEW


@pytest.mark.parametrize("name", kept_runs())
def test_a_kept_run_has_todays_cases_options_and_tolerances(name):
    run = kept_runs()[name]
    assert [case.name for case in run.cases] == [case.name for case in CASES], RENEW
    assert name == f"{run.platform}-{run.options.precision}"
    assert run.options == Options(precision=run.options.precision), RENEW
    for case in run.cases:
        for row in case.rows:
            limit = tolerance(row.quantity, row.dtype, run.platform, case.name, run.options.precision)
            assert row.tolerance == limit, RENEW
    assert run.problems() == []


def test_the_readme_shows_a_run_of_the_cpu():
    assert kept_runs()[README_RUN].platform == "cpu"


def test_some_cases_are_not_enough_for_the_documentation(run, tmp_path):
    with pytest.raises(ValueError, match="must have all cases"):
        write_docs(run, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_figures_that_no_longer_hold_are_named(run):
    case = run.cases[1]
    summary = case.summary()
    assert stale(case, summary) == []
    changed = [replace(row, error=1e-3) if row.quantity == "output" else row for row in summary.rows]
    named = stale(case, replace(summary, rows=changed))
    assert len(named) == 1
    assert named[0].startswith(f"{case.name}, float64 output: 1e-03 is written, got ")
    fewer = [row for row in summary.rows if row.quantity != "map"]
    assert [line.split(", got")[0] for line in stale(case, replace(summary, rows=fewer))] == [
        f"{case.name}, {dtype} map: nothing is written" for dtype in ("float64", "bfloat16")
    ]

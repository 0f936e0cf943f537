"""The generated parts of the documents are up to date, and updates leave everything else alone."""

import shutil
from dataclasses import replace

import pytest

from flax_attn.testing.tolerances import tolerance
from torch_ref.cases import CASES
from torch_ref.originals import ORIGINALS
from torch_ref.report.docs import (
    README_RUN,
    ROOT,
    kept_runs,
    missing_figures,
    render_docs,
    stale,
    update,
    write_between,
    write_docs,
)
from torch_ref.report.run import Options

PAGES = ("README.md", *(f"docs/{name}.md" for name in ("blocks", "checkpoints", "parity", "speed")))


@pytest.fixture
def copy(tmp_path):
    """A copy of the generated pages and the figures."""
    for folder in ("docs/parity", "docs/speed"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for page in PAGES:
        shutil.copy(ROOT / page, tmp_path / page)
    return tmp_path


def texts(root):
    return {page: (root / page).read_text() for page in PAGES}


def test_the_generated_tables_are_up_to_date(copy):
    render_docs(copy)
    for page, text in texts(ROOT).items():
        assert text == texts(copy)[page], f"{page} is stale: run `python -m torch_ref docs`"


def test_every_original_of_a_block_is_shown_by_its_whole_name():
    page = (ROOT / "docs" / "blocks.md").read_text()
    for one in ORIGINALS:
        place, _, cls = one.path.partition(":")
        shown = "/".join(place.split("/")[:2]) if one.in_repository else f"`{place.removesuffix('.py')}.{cls}`"
        assert one.block == "ResNet" or shown in page, one.name


@pytest.mark.parametrize("name", kept_runs())
def test_the_figures_are_of_the_current_cases_options_and_tolerances(name):
    run = kept_runs()[name]
    assert missing_figures(run) == []
    assert [case.name for case in run.cases] == [case.name for case in CASES], "run `python -m torch_ref parity --docs`"
    assert name == f"{run.platform}-{run.options.precision}"
    assert run.options == Options(precision=run.options.precision)
    for case in run.cases:
        command = f"stale: run `python -m torch_ref parity {case.class_name} --docs`"
        for row in case.rows:
            limit = tolerance(row.quantity, row.dtype, run.platform, case.name, run.options.precision)
            assert row.tolerance == limit, command
    assert run.problems() == []


def test_a_case_without_figures_gets_the_command_that_adds_them():
    run = kept_runs()[README_RUN]
    fewer = replace(run, cases=[case for case in run.cases if case.name != "CBAM, with spatial gate"])
    (message,) = missing_figures(fewer)
    assert "`python -m torch_ref parity CBAM --docs`" in message


def test_an_update_changes_the_given_cases_only(run):
    kept = kept_runs()[README_RUN]
    new = replace(kept, hardware="another CPU", cases=[replace(case, seconds=0.5) for case in run.cases])
    merged = update(replace(kept, cases=[*kept.cases[::-1], replace(kept.cases[0], name="Gone")]), new)
    assert [case.name for case in merged.cases] == [case.name for case in CASES]
    changed = [case for case, old in zip(merged.cases, kept.cases, strict=True) if case != old]
    assert changed == new.cases
    assert merged.hardware == f"{kept.hardware} / another CPU"
    assert merged.versions == kept.versions
    assert update(kept, replace(kept, hardware="another CPU")).hardware == "another CPU"


def test_the_documents_follow_the_figures(copy):
    kept = kept_runs()[README_RUN]
    pool = next(case for case in kept.cases if case.name == "ChannelPool")
    rows = [replace(row, error=1.25e-13) if row.dtype == "float64" else row for row in pool.rows]
    written = write_docs(replace(kept, cases=[replace(pool, rows=rows)]), copy)
    assert {path.name for path in written} == {f"{README_RUN}.json", *(page.split("/")[-1] for page in PAGES)}
    new = texts(copy)
    assert new["docs/blocks.md"] == texts(ROOT)["docs/blocks.md"]
    assert "float64 is **1e-13**" in new["README.md"]
    before, after = (text["docs/parity.md"].splitlines() for text in (texts(ROOT), new))
    changed = {line.split("|")[1].strip() for line, old in zip(after, before, strict=True) if line != old}
    assert changed == {"`ChannelPool`", "ChannelPool"}


def test_figures_with_other_options_or_failures_are_refused(run, copy):
    old = texts(copy)
    with pytest.raises(ValueError, match="must have the default dtypes, steps and seed"):
        write_docs(run, copy)
    kept = kept_runs()[README_RUN]
    rows = [replace(row, error=1.0) for row in kept.cases[0].rows]
    with pytest.raises(ValueError, match="must have a run without failures, got "):
        write_docs(replace(kept, cases=[replace(kept.cases[0], rows=rows)]), copy)
    assert texts(copy) == old


def test_text_between_marks_is_replaced(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: begin -->\nold\n<!-- a: end -->\nafter\n<!-- b: begin --><!-- b: end -->\n")
    write_between(page, "a", "new \\1\n")
    write_between(page, "b", "more")
    assert page.read_text() == (
        "before\n<!-- a: begin -->\nnew \\1\n<!-- a: end -->\nafter\n<!-- b: begin -->\nmore\n<!-- b: end -->\n"
    )
    with pytest.raises(ValueError, match=r"page.md must contain <!-- c: begin --> and <!-- c: end -->"):
        write_between(page, "c", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["page.md"]


def test_stale_figures_are_named(run):
    case = run.cases[1]
    summary = case.summary()
    assert stale(case, summary) == []
    changed = [replace(row, error=1e-3) if row.quantity == "output" else row for row in summary.rows]
    named = stale(case, replace(summary, rows=changed))
    assert len(named) == 1
    assert named[0].startswith(f"{case.name}, float64 output: documented is 1e-03, got ")
    fewer = [row for row in summary.rows if row.quantity != "map"]
    assert [line.split(", got")[0] for line in stale(case, replace(summary, rows=fewer))] == [
        f"{case.name}, {dtype} map: documented is nothing" for dtype in ("float64", "bfloat16")
    ]

"""The runs of a report, and the options that it refuses."""

import pytest

from train.config import NETWORKS
from train.report.runs import ROWS, Options, plan, read_report, select_rows
from train.training import parse as parse_training


def test_every_row_has_every_protocol_seed_and_side_once():
    runs = plan(Options(seeds=(3, 5)))
    assert len(runs) == len({run.path for run in runs}) == 2 * len(ROWS) * 3
    first = runs[: len(runs) // 2]
    assert {run.key.seed for run in first} == {3}  # half way there is one seed of everything
    twins = [run for run in runs if run.key.side == "pytorch"]
    assert {run.key.protocol for run in twins} == {"per_image"}
    assert {run.key.row for run in twins} == set(ROWS)


def test_what_is_named_twice_is_trained_once():
    assert plan(Options(rows=("eca", "eca"), seeds=(1, 1))) == plan(Options(rows=("eca",), seeds=(1,)))


@pytest.mark.parametrize(
    ("patterns", "rows"),
    [
        (["cbam*"], ["cbam", "cbam_spatial"]),
        (["multi_head-[ps]*", "cnn"], ["multi_head-pixels", "multi_head-sine", "cnn"]),
        (["ec?", "*ca", "cbam"], ["eca", "cbam"]),
        (["cnn", "all"], ["cnn", *(row for row in ROWS if row != "cnn")]),
        (["*"], list(ROWS)),
    ],
)
def test_rows_are_named_or_matched(patterns, rows):
    assert select_rows(patterns) == rows


def test_every_block_has_a_row():
    assert {row["network"] for row in ROWS.values()} == {*NETWORKS}


def test_a_row_is_trained_as_it_says():
    for run in plan(Options(rows=("all",), seeds=(0,), twins=(), batch_size=7)):
        config, protocol = run.config, run.key.protocol
        assert config.patches == protocol
        assert vars(config).items() >= ROWS[run.key.row].items()
        assert config.batch_size == (7 if protocol == "per_image" else 10)
        assert config.shuffle == (protocol == "per_image")


def test_the_words_of_a_run_are_its_options():
    for run in plan(Options(seeds=(2,), twins=(), epochs=3)):
        assert parse_training(run.words).config == run.config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(seeds=()), "--rows, --protocols and --seeds must name at least one each"),
        (Options(rows=()), "--rows, --protocols and --seeds must name"),
        (
            Options(rows=("cnn", "cbma")),
            "--rows must be all, or rows of the tables or patterns of them, got 'cbma'; did you mean 'cbam'?",
        ),
        (Options(rows=("cnn", "zz*")), r"patterns of them, got 'zz\*'; available: all, cnn, "),
        (Options(rows=("CBAM",)), "patterns of them, got 'CBAM'; "),
        (Options(epochs=0), "--epochs must be at least 1, got 0"),
        (Options(seeds=(-1,)), r"--seed must lie in \[0, 2\*\*32\), got -1"),
        (Options(learning_rate=0.0), "--learning-rate must be a positive number, got 0.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        plan(options)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", "no 'outcomes'"),
        ('{"outcomes": [{"row": "cnn"}]}', "no 'protocol'"),
        ('{"outcomes": 3}', "'int' object is not iterable"),
        ('{"outcomes": [], "costs": [{"row": "cnn", "speed": 3}]}', "'speed'"),
        ('{"outcomes": [], "options": "none", "images": {}}', "dictionary update"),
    ],
)
def test_a_file_of_something_else(text, problem, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"results.json must hold the results of a report, got .*{problem}"):
        read_report(file)

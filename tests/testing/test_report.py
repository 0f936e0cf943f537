"""What a report prints: short, the cause first, and everything on request."""

from flax_attn.testing import Report, Row

GOOD = [
    Row(quantity, f"layer{i}.weight", mode, dtype, 1e-15 * i, 0.0, 1.0)
    for dtype in ("float64", "float32")
    for mode in ("train", "eval")
    for quantity in ("output", "parameter gradient", "input gradient", "buffer")
    for i in range(100)
]
BAD = [Row("output", f"output[{i}]", "eval", "float64", 2.0, 0.0, 1.0) for i in range(200)]


def test_a_success_is_one_line_for_each_dtype_mode_and_quantity():
    lines = str(Report("Net", GOOD)).splitlines()
    assert lines[0] == "Net: 0 of 1600 comparisons failed"
    assert len(lines) == 1 + 2 * 2 * 4 + 1
    assert all("layer99.weight" in line for line in lines[1:-1])  # the worst
    assert lines[-1] == "... and 1584 more; print(report.full()) shows all"


def test_a_failure_is_ten_rows_and_a_count():
    report = Report("Net", GOOD + BAD, None, ["norm: eps 1e-6 in Flax, 1e-5 in PyTorch"])
    lines = str(report).splitlines()
    assert lines[:2] == ["Net: 200 of 1800 comparisons failed", "norm: eps 1e-6 in Flax, 1e-5 in PyTorch"]
    assert lines[2:-1] == [str(row) for row in BAD[:10]]
    assert lines[-1] == "... and 190 more; print(report.full()) shows all"


def test_everything_is_shown_on_request():
    report = Report("Net", GOOD + BAD)
    assert report.full().splitlines()[1:] == [str(row) for row in report.rows]


def test_what_fits_is_shown_whole():
    assert "more" not in str(Report("Net", BAD[:10]))
    assert "more" not in str(Report("Net", GOOD[:1]))


def test_float32_is_suspected_where_errors_have_its_size():
    for error, suspected in ((1e-12, False), (1e-10, False), (3e-8, True), (1e-5, True), (1e-3, False)):
        told = str(Report("Net", [Row("output", "output", "eval", "float64", error, 0.0, 1e-13)]))
        assert ("look like a float32" in told) is suspected, error

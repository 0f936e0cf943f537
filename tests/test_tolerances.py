"""There is one table of tolerances: no other file passes one as a literal, by keyword or by position."""

import ast
from pathlib import Path

import pytest

from flax_attn.testing import tolerance, tolerances

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "flax_attn" / "testing" / "tolerances.py"
KEYWORDS = {"rtol", "atol", "rel", "abs", "rel_tol", "abs_tol", "tol", "tolerance", "decimal", "significant", "places"}
# The position from which on a positional argument is a tolerance.
POSITIONS = {
    "allclose": 2,
    "isclose": 2,
    "assert_allclose": 2,
    "assert_almost_equal": 2,
    "assert_array_almost_equal": 2,
    "assert_approx_equal": 2,
    "assert_close": 2,
    "approx": 1,
}
SMALL = 1e-3  # a comparison `x < 1e-5` with less than this is a tolerance in disguise


def number(node):
    """The value of a literal number, also behind a sign or an operator; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp):
        return number(node.operand)
    if isinstance(node, ast.BinOp):
        left, right = number(node.left), number(node.right)
        return None if left is None or right is None else 10.0**right if isinstance(node.op, ast.Pow) else left * right
    return None


def tolerance_literals(source):
    """The lines of ``source`` that hold a tolerance."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            keywords = [keyword.value for keyword in node.keywords if keyword.arg in KEYWORDS]
            positional = node.args[POSITIONS[name] :] if name in POSITIONS else []
            if any(number(argument) for argument in [*keywords, *positional]):
                lines.append(node.lineno)
        elif isinstance(node, ast.Compare):
            for operator, right in zip(node.ops, node.comparators, strict=True):
                value = number(right)
                if isinstance(operator, ast.Lt | ast.LtE) and isinstance(value, float) and 0 < value < SMALL:
                    lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    "path",
    [
        path
        for folder in ("flax_attn", "torch_ref", "train", "tests")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != TABLE
    ],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_no_tolerance_outside_the_table(path):
    assert tolerance_literals(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "np.testing.assert_allclose(a, b, rtol=1e-5)",
        "np.allclose(a, b, 1e-3)",
        "assert a == pytest.approx(b, 1e-6)",
        "assert a == pytest.approx(b, abs=10 ** -6)",
        "assert error < 1e-7",
        "torch.testing.assert_close(a, b, atol=-1e-9, rtol=0)",
    ],
)
def test_the_search_finds_one(line):
    assert tolerance_literals(line) == [1]


def test_every_exception_names_a_case_and_a_reason():
    from torch_ref.cases import CASES

    names = {case.name for case in CASES}
    for (case, quantity, dtype, backend), (limit, reason) in tolerances.EXCEPTIONS.items():
        assert case in names
        assert len(reason.split()) > 8
        assert limit > tolerances.TABLE[quantity, dtype, backend]
        assert tolerance(quantity, dtype, backend, case) == limit


def test_unknown_row():
    with pytest.raises(ValueError, match="tolerance table"):
        tolerance("outputs", "float64")

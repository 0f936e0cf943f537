"""There is one table of tolerances: no other file passes one as a literal, by keyword or by position."""

import ast
import operator
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
    "assertAlmostEqual": 2,
    "assert_array_less": 1,
    "assert_close": 2,
    "approx": 1,
}
SMALL = 1e-3  # a comparison `x < 1e-5` with less than this is a tolerance in disguise


OPERATORS = {ast.Pow: operator.pow, ast.Div: operator.truediv, ast.Mult: operator.mul}
IMPLICIT = {
    *("assert_allclose", "allclose", "isclose", "approx", "assert_close", "assert_almost_equal"),
    *("assert_array_almost_equal", "assert_approx_equal", "assertAlmostEqual", "assertNotAlmostEqual"),
}


def number(node):
    """The value of a literal number, also behind a sign or an operator; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return node.value
    if isinstance(node, ast.UnaryOp):
        value = number(node.operand)
        return -value if value is not None and isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = number(node.left), number(node.right)
        return None if None in (left, right) else OPERATORS[type(node.op)](left, right)
    return None


def is_small(node):
    value = number(node)
    return value is not None and 0 < value < SMALL


def in_call(node):
    """Whether a call gives a tolerance as a literal, or leaves it to a default."""
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    keywords = [keyword.value for keyword in node.keywords if keyword.arg in KEYWORDS]
    positional = node.args[POSITIONS[name] :] if name in POSITIONS else []
    return any(number(given) for given in [*keywords, *positional]) or (name in IMPLICIT and not keywords + positional)


def in_comparison(node):
    """Whether something has to be smaller than a small number."""
    sides = [node.left, *node.comparators]
    below = (ast.Lt, ast.LtE)
    above = (ast.Gt, ast.GtE)
    return any(
        (isinstance(sign, below) and is_small(right)) or (isinstance(sign, above) and is_small(left))
        for sign, left, right in zip(node.ops, sides, sides[1:], strict=False)
    )


def in_dictionary(node):
    return any(
        isinstance(key, ast.Constant) and key.value in KEYWORDS and number(value)
        for key, value in zip(node.keys, node.values, strict=True)
    )


def is_telling(name):
    """Whether something of this name is a tolerance if it is small."""
    return any(word in name.lower() for word in ("tol", "close", "error", "same", "limit", "accuracy"))


def in_assignment(node):
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    names = [getattr(target, "id", getattr(target, "attr", "")) for target in targets]
    return node.value is not None and is_small(node.value) and any(map(is_telling, names))


def in_default(node):
    """Whether an argument of a function has a tolerance for its default."""
    arguments = [*node.posonlyargs, *node.args]
    given = [*zip(reversed(arguments), reversed(node.defaults), strict=False)]
    given += [(name, value) for name, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value is not None]
    return any(is_small(value) and (is_telling(name.arg) or name.arg in KEYWORDS) for name, value in given)


HIDING_PLACES = {
    ast.Call: in_call,
    ast.Compare: in_comparison,
    ast.Dict: in_dictionary,
    ast.Assign: in_assignment,
    ast.AnnAssign: in_assignment,
    ast.arguments: in_default,
}


def tolerance_literals(source):
    """The lines of ``source`` that hold a tolerance."""
    return [
        getattr(node, "lineno", 1)
        for node in ast.walk(ast.parse(source))
        if type(node) in HIDING_PLACES and HIDING_PLACES[type(node)](node)
    ]


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
        "assert 1e-7 > error",
        "assert error <= 10**-6",
        "assert error < 1 / 10**6",
        "options = {'rtol': 1e-5}",
        "TOLERANCE = 1e-5",
        "TOLERANCE: float = 1e-5",
        "self.tolerance = 1e-5",
        "def same(a, b, tol=1e-5): pass",
        "def same(a, b, *, limit=1e-5): pass",
        "np.testing.assert_array_less(error, 1e-5)",
        "np.testing.assert_array_almost_equal(a, b)",
        "self.assertAlmostEqual(a, b)",
        "np.testing.assert_allclose(a, b)",
        "assert a == pytest.approx(b)",
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

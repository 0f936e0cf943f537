"""Every planted fault is caught, and named: the quantity and the path where it first shows, and the submodule.

A fault is one line of `flax_attn`, changed in a copy of the whole package, which brings its own harness and converter.
`faults.toml` is the list.
"""

import importlib
import shutil
import sys
import tomllib
from contextlib import contextmanager
from pathlib import Path

import pytest

import flax_attn
from torch_ref.cases import CASES, HEADS, MAP, Case, Input
from torch_ref.pairs import make_pair

PACKAGE = Path(flax_attn.__file__).parent
FAULTS = tomllib.loads((Path(__file__).parent / "faults.toml").read_text())["fault"]

# What the table of cases avoids: shapes in which a swapped axis raises no error; and what it has no need of.
SQUARE = (
    Case(
        "MultiHeadAttention, square",
        "blocks.multi_head",
        (Input((2, 6, 6)), Input((2, 6, 6)), Input((2, 6, 6))),
        (None,),
        {"n_head": 2, "d_model": 6, "d_k": 3, "d_v": 3, "dropout": 0.0},
    ),
    Case("SinePositionEncoding2d, square", "blocks.position", (Input((2, 8, 5, 5), MAP),), (MAP,), {"channels": 8}),
    Case("NetMultiHeadAttention, square", "networks.patch", (Input((2, 3, 12, 12), MAP),), (None, MAP)),
    Case("ConvPart, zeros", "networks.patch", (Input((2, 3, 13, 15), MAP, "zeros"),), (MAP,)),
    Case(
        "BasicConv, zeros",
        "blocks.cbam",
        (Input((2, 1, 5, 7), MAP, "zeros"),),
        (MAP,),
        {"in_planes": 1, "out_planes": 3, "kernel_size": 1, "bn": False},
    ),
    Case(
        "ScaledDotProductAttention, long",
        "blocks.dot_product",
        (
            *(Input(shape, HEADS) for shape in ((1, 2, 131, 3), (1, 2, 5, 3), (1, 2, 5, 7))),
            Input((1, 1, 131, 5), kind="mask"),
        ),
        (HEADS,),
        {"temperature": 2.5},
    ),
    Case(
        "ScaledDotProductAttention, weights not asked for",
        "blocks.dot_product",
        tuple(Input(shape, HEADS) for shape in ((2, 3, 5, 7), (2, 3, 11, 7), (2, 3, 11, 13))),
        (HEADS,),
        {"temperature": 2.5, "attn_dropout": 0.3},
    ),
)
# A program that runs once: compiling it is all that it costs. So compiled it rounds one sum in two ways where it needs
# it twice, which breaks ties behind a convolution; these are compiled as usual.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
AS_USUAL = ("ConvPart, zeros",)

BY_NAME = {case.name: case for case in CASES + SQUARE}


# How faults are looked for where no parity test shows that nothing else is wrong.
UNPROVEN = sorted(
    {(fault["case"], fault.get("mode", "eval")) for fault in FAULTS}
    - {(case.name, mode) for case in CASES for mode in ("train", "eval")}
)

every_fault = pytest.mark.parametrize("fault", FAULTS, ids=[fault["name"] for fault in FAULTS])


@contextmanager
def planted(fault, folder):
    """A copy of flax_attn with the fault in it, if there is one; yields the name under which it is imported."""
    package = "faulty_flax_attn"
    shutil.copytree(PACKAGE, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    if fault is not None:
        change(folder / package / fault["file"], fault["line"], fault["becomes"])
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield package
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]


def change(file, line, becomes):
    text = file.read_text()
    assert text.count(line) == 1, f"stale: {line!r} must stand in {file.name} once, got {text.count(line)} times"
    assert "\n" not in line + becomes
    file.write_text(text.replace(line, becomes))


def compared(case, mode, package):
    pair = make_pair(BY_NAME[case], package=package)
    return pair.compare(dtypes=["float64"], modes=[mode], compiler_options=None if case in AS_USUAL else QUICK)


@every_fault
def test_a_planted_fault_is_caught_and_named(fault, tmp_path):
    with planted(fault, tmp_path) as package:
        if "error" in fault:
            with pytest.raises(ValueError, match=fault["error"]):
                compared(fault["case"], fault.get("mode", "eval"), package)
            return
        report = compared(fault["case"], fault.get("mode", "eval"), package)
    assert not report.ok
    first, finding = report.failures[0], report.finding
    assert [first.quantity, first.path] == fault["shows"]
    assert f"{first.quantity:18} {first.path}" in str(report)
    assert (finding and [finding.path, finding.what]) == fault.get("found")
    assert (finding is not None and finding.given) == fault.get("given", False)
    quantities = {row.quantity for row in report.failures}
    assert quantities == set(fault["alone"]) if "alone" in fault else "output" in quantities


@pytest.mark.parametrize(("case", "mode"), [("SpatialGate", "train"), *UNPROVEN])
def test_without_a_fault_there_is_no_alarm(case, mode, tmp_path):
    with planted(None, tmp_path) as package:
        report = compared(case, mode, package)
        assert type(report).__module__ == f"{package}.testing.report"
    assert report.ok, str(report)
    assert package not in sys.modules


def test_there_are_enough_of_them_everywhere():
    assert len({fault["name"] for fault in FAULTS}) == len(FAULTS) >= 30
    for folder in ("blocks", "layers", "ops", "convert", "networks"):
        assert any(fault["file"].startswith(folder) for fault in FAULTS)


def test_outputs_alone_would_let_many_pass():
    alone = [set(fault["alone"]) for fault in FAULTS if "alone" in fault]
    assert len(alone) >= 10
    for quantity in ("map", "parameter gradient", "input gradient", "buffer"):
        assert any(quantity in quantities for quantities in alone)


def test_a_stale_fault_is_an_error(tmp_path):
    with pytest.raises(AssertionError, match=r"must stand in cbam\.py once, got 0 times"):
        change_in_copy(tmp_path, "no such line")
    with pytest.raises(AssertionError, match="got 2 times"):
        change_in_copy(tmp_path, "return ops.multiply(x, scale)")


def change_in_copy(folder, line):
    shutil.copy(PACKAGE / "blocks" / "cbam.py", folder)
    change(folder / "cbam.py", line, "")

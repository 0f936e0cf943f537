"""Every planted fault is caught, and named: the quantity and the path where it first shows, and the submodule."""

from collections import Counter

import pytest

from torch_ref.cases import CASES, COLLECTION
from torch_ref.pairs import make_pair

from . import channel_gates, convolutions, maps, spatial_gates, tokens, windows
from .faults import FAULTS, MORE_CASES
from .planting import arguments, constant, wrap

# These programs run once, so all their cost is compilation. Compiled this way, a sum that is needed twice is rounded in
# two ways, which breaks ties behind a convolution; such cases are compiled as usual.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
AS_USUAL = ("ConvPart, zeros",)
# Of the collection, whose faults are planted every night.
COLLECTED = [
    fault for group in (channel_gates, spatial_gates, convolutions, tokens, maps, windows) for fault in group.FAULTS
]
BY_NAME = {case.name: case for case in CASES + MORE_CASES}
UNPROVEN = sorted({(fault.case, fault.mode) for fault in FAULTS if fault.case not in {case.name for case in CASES}})


def compared(case, mode):
    pair = make_pair(BY_NAME[case])
    return pair.compare(dtypes=["float64"], modes=[mode], compiler_options=None if case in AS_USUAL else QUICK)


@pytest.mark.parametrize(
    "fault",
    [
        *(pytest.param(fault, id=fault.name) for fault in FAULTS),
        *(pytest.param(fault, id=f"{fault.case}: {fault.name}", marks=pytest.mark.nightly) for fault in COLLECTED),
    ],
)
def test_a_planted_fault_is_caught_and_named(fault, monkeypatch):
    fault.plant(monkeypatch)
    if fault.error:
        with pytest.raises(ValueError, match=fault.error):
            compared(fault.case, fault.mode)
        return
    report = compared(fault.case, fault.mode)
    assert not report.ok
    first, finding = report.failures[0], report.finding
    assert (first.quantity, first.path) == fault.shows
    assert f"{first.quantity:18} {first.path}" in str(report)
    found = None if fault.shows[0] in ("buffer", "map") else fault.found
    assert (finding and (finding.path, finding.what)) == found
    assert (finding is not None and finding.given) == fault.given
    quantities = {row.quantity for row in report.failures}
    assert quantities == fault.hidden if fault.hidden else "output" in quantities


@pytest.mark.parametrize(("case", "mode"), UNPROVEN)  # no parity test shows that nothing else is wrong in these
def test_without_a_fault_there_is_no_alarm(case, mode):
    report = compared(case, mode)
    assert report.ok, str(report)


def test_every_block_of_the_collection_has_two_faults():
    counts = Counter(BY_NAME[fault.case].class_name for fault in COLLECTED)
    blocks = {case.class_name for case in COLLECTION if case.module.startswith("blocks")}
    assert {name: counts[name] for name in blocks if counts[name] < 2} == {}


def test_outputs_alone_would_let_many_pass():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 58
    hidden = [fault.hidden for fault in FAULTS if fault.hidden]
    assert len(hidden) >= 10
    assert set.union(*hidden) == {"map", "parameter gradient", "input gradient", "buffer"}


@pytest.mark.parametrize(
    "plant",
    [
        lambda patch: wrap("ops.no_such_function", None)(patch),
        lambda patch: arguments("no_such_function", eps=1.0)(patch),
        lambda patch: constant("ops.attention.NO_SUCH", 1)(patch),
    ],
)
def test_a_name_that_is_gone_is_an_error(plant, monkeypatch):
    with pytest.raises(AttributeError, match=r"(?i)no_such"):
        plant(monkeypatch)

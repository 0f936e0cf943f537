"""Every class is its PyTorch twin whatever it is called with, in every dtype and mode.

A call is drawn as names (which case, what kind of values per input, which weights) and a seed, not number by number;
what fails shrinks to the plainest kinds. Compiling a program per case, mode and dtype takes the time. So `make test`
draws few calls of a block in one program, the same ones in every run; `make nightly` draws ``--examples`` calls, other
ones in every run, from all programs of all classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from flax_attn.testing.comparison import Comparison
from flax_attn.testing.errors import rounded
from flax_attn.testing.flax_side import load_in_float64
from flax_attn.testing.inputs import take_apart
from flax_attn.testing.results import Objective, random_cotangents
from flax_attn.testing.rounding import unexplained
from torch_ref.cases import COLLECTION, Case
from torch_ref.draws import SETS, coarse, family
from torch_ref.maps import attention_maps
from torch_ref.pairs import make_pair

DTYPES = ("float64", "float32", "bfloat16")
MODES = ("train", "eval")
WEIGHTS = ("random", "coarse")


@dataclass(frozen=True)
class Call:
    """What is drawn."""

    case: Case
    dtype: str
    mode: str
    weights: str
    kinds: Sequence[str]
    seed: int

    def __repr__(self):
        return f"{self.case.name!r}, {self.dtype}, {self.mode}, {self.weights} weights, {self.kinds}, seed {self.seed}"

    def inputs(self):
        rng = np.random.default_rng(self.seed)
        drawn = [
            family(wanted)[kind](rng, wanted.shape) for wanted, kind in zip(self.case.inputs, self.kinds, strict=True)
        ]
        return [x if x.dtype == bool else rounded(x.astype(np.float32), self.dtype) for x in drawn]

    def objective(self, shapes):
        cotangents = random_cotangents(list(shapes.values()), self.seed)
        return Objective([rounded(array, self.dtype) for array in cotangents], paths=tuple(shapes))


def programs(class_name, every):
    """The cases of a class with the dtypes and modes that they are compiled in.

    Without ``every`` the first case and the first with another kind of input (a mask, say), one program each.
    """
    known = SETS[class_name]
    if every:
        return [(case, dtype, mode) for case in known for dtype in DTYPES for mode in MODES]
    kinds = [{wanted.kind for wanted in case.inputs} for case in known]
    first = sorted({kinds.index(each) for each in kinds})
    turn = list(SETS).index(class_name)
    return [(known[place], "float64", MODES[(turn + place) % 2]) for place in first]


@st.composite
def calls(draw, class_name, every):
    case, dtype, mode = draw(st.sampled_from(programs(class_name, every)))
    weights = draw(st.sampled_from(WEIGHTS))
    kinds = tuple(draw(st.sampled_from(list(family(wanted)))) for wanted in case.inputs)
    return Call(case, dtype, mode, weights, kinds, draw(st.integers(0, 2**16)))


def one_of_each_kind(class_name, every):
    """The calls that are not left to chance: every kind of values once, in the first case that has it."""
    seen = set()
    for case, dtype, mode in programs(class_name, every):
        kinds = [list(family(wanted)) for wanted in case.inputs]
        for i in range(max(map(len, kinds))):
            chosen = tuple(known[i % len(known)] for known in kinds)
            if not seen.issuperset(chosen):
                yield Call(case, dtype, mode, "random", chosen, 0)
            seen.update(chosen)


def comparisons(case):
    """A comparison for either kind of weights; the two share what is compiled."""
    pair = make_pair(case)
    zero = frozenset(case.zero_gradients)
    # Compiled in half the time so, and slower by far in the widest convolutions alone.
    level = "1" if case.module == "networks.sensor" else "0"
    random = Comparison(
        load_in_float64(pair.flax_module, pair.torch_module.state_dict(), None),
        pair.torch_module,
        signature=take_apart([None] * len(case.inputs))[0],
        flax_kwargs=case.kwargs,
        torch_kwargs=case.kwargs,
        layouts=pair.layouts,
        rename=None,
        torch_maps=attention_maps,
        zero_gradients={"train": zero, "eval": zero},
        precision="highest",
        seed=0,
        name=case.name,
        compiler_options={"xla_backend_optimization_level": level},
    )
    other = coarse(pair.torch_module)
    flax_module = load_in_float64(pair.flax_module, other.state_dict(), None)
    return {"random": random, "coarse": random.with_weights_of(flax_module, other)}


def complaints(comparison, call):
    """What differs: first by the tolerance of every tensor, and if that fails by what rounding may do to it."""
    inputs = call.inputs()
    shapes = comparison.theirs("eval", "float64", "float64").output_shapes(inputs)
    objective = call.objective(shapes)
    with np.errstate(all="ignore"):  # infinities are among what is drawn
        if all(row.ok for row in comparison.rows(inputs, objective, call.mode, call.dtype)):
            return []
        event("a tensor that is the remainder of larger sums, or not finite")
        return unexplained(comparison, inputs, objective, call.mode, call.dtype)


def check(class_name, examples, every):
    compared = {}

    @settings(max_examples=examples, derandomize=not every)
    @given(calls(class_name, every))
    def check_call(call):
        if call.case.name not in compared:
            compared[call.case.name] = comparisons(call.case)
        assert complaints(compared[call.case.name][call.weights], call) == []

    for call in one_of_each_kind(class_name, every):
        check_call = example(call)(check_call)
    check_call()


def is_quick(case):
    return case.module.startswith("blocks") and case not in COLLECTION


@pytest.mark.parametrize("class_name", [name for name, cases in SETS.items() if is_quick(cases[0])])
def test_any_call_of_a_block_is_pytorchs(class_name):
    check(class_name, examples=6, every=False)


@pytest.mark.nightly
@pytest.mark.parametrize("class_name", SETS)
def test_any_call_of_any_program_is_pytorchs(class_name, request):
    check(class_name, request.config.getoption("--examples"), every=True)

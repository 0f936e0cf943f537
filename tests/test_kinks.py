"""No network case sits where rounding decides a gradient, which would then depend on the processor.

Gradients jump where the input of a ReLU is zero up to rounding, or the larger of two values under a max pool is larger
by a rounding error. Blocks have few values, and their ties are intended and exact.
"""

import copy

import numpy as np
import pytest
import torch

from flax_attn.testing.tolerances import UNITS, tolerance
from torch_ref.cases import CASES
from torch_ref.pairs import all_digits_of, in_all_digits, make_pair

UNITS_MOVED = 8  # units in the last place of float32; gradients may move by as many times their tolerance
RUNS = 8


def gradients(module, inputs):
    """Of all parameters and inputs, for fixed random cotangents."""
    module = copy.deepcopy(module)
    inputs = [x.clone().requires_grad_() for x in inputs]
    output = module(*inputs)
    leaves = output if isinstance(output, tuple) else (output,)
    random = torch.Generator().manual_seed(1)
    sum((leaf * torch.randn(leaf.shape, generator=random, dtype=leaf.dtype)).sum() for leaf in leaves).backward()
    named = {**dict(module.named_parameters()), **{f"input {number}": x for number, x in enumerate(inputs)}}
    return {name: tensor.grad for name, tensor in named.items()}


def moved(module, inputs, seed):
    """Both with every number off by some units of float32."""
    random = torch.Generator().manual_seed(seed)
    module = copy.deepcopy(module)

    def off(x):
        return x * (1 + UNITS_MOVED * UNITS["float32"] * torch.randn(x.shape, generator=random, dtype=x.dtype))

    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(off(parameter))
    return module, [off(x) for x in inputs]


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.module.startswith("networks")], ids=lambda case: case.name
)
def test_gradients_do_not_jump_where_numbers_are_rounded(case, mode):
    pair = make_pair(case)
    module = in_all_digits(pair.torch_module).train(mode == "train")
    for layer in module.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    inputs = [torch.from_numpy(np.asarray(x)) for x in all_digits_of(pair.inputs)]
    still = gradients(module, inputs)
    largest = max(gradient.abs().max() for gradient in still.values())
    # What is zero by algebra has no size of its own.
    judged = {name: g for name, g in still.items() if g.abs().max() > tolerance("output", "float64") * largest}
    jumps = {}
    for seed in range(RUNS):
        for name, gradient in gradients(*moved(module, inputs, seed)).items():
            if name in judged:
                jump = (gradient - still[name]).abs().max() / still[name].abs().max()
                jumps[name] = max(jump.item(), jumps.get(name, 0.0))
    limit = UNITS_MOVED * tolerance("parameter gradient", "float32")
    assert {name: jump for name, jump in jumps.items() if jump > limit} == {}, "another draw of this case may do"

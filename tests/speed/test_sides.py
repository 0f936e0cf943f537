"""Both sides of a timing do the same work, in every form of the twin."""

import numpy as np
import pytest
import torch

from flax_attn.registry import BLOCKS, find_block
from flax_attn.testing import relative_error, tolerance
from torch_ref.speed.figures import COMPILED, FORMS, FUSED, TUTORIAL, WRITTEN
from torch_ref.speed.memory import OURS, peak
from torch_ref.speed.ours import Ours
from torch_ref.speed.subjects import BACKWARD, FORWARD, STEP, Subject, find_subjects
from torch_ref.speed.theirs import (
    Theirs,
    costs,
    fused,
    has_form,
    held_bytes,
    input_of,
    replace_attention,
    tutorial,
    twin,
)

SMALL = (4, 5, 16)


@pytest.mark.parametrize(
    ("name", "attend"),
    [
        ("block/multi_head", fused),
        ("network/multi_head", fused),
        ("block/conv_attention", fused),
        ("block/conv_attention", tutorial),
        ("block/conv_multi_head", fused),
        ("block/conv_multi_head", tutorial),
    ],
)
def test_the_other_attentions_compute_what_the_twin_does(name, attend):
    subject = Subject(name, 2, SMALL if name.startswith("block") else (4, 5, 32))
    ours = Ours(subject, 1)
    module, x = twin(subject, ours).eval(), input_of(ours)
    with torch.no_grad():
        expected = subject.call(module, x)
        inner = next(inner for inner in module.modules() if hasattr(inner, "temperature") or hasattr(inner, "key_size"))
        replace_attention(module, attend)
        assert {"forward", "attend"} & set(vars(inner))  # replaced indeed
        assert relative_error(subject.call(module, x).numpy(), expected.numpy()) <= tolerance("output", "float32")


KINDS = {"gate": "cbam", "tokens": "additive", "self": "self_attention", "context": "conv_attention", "head": "csra"}


@pytest.mark.parametrize("name", [*(f"block/{name}" for name in KINDS.values()), "network/channel"])
def test_both_sides_compute_the_same(name):
    subject = Subject(name, 2, SMALL)
    ours = Ours(subject, 1)
    ours.module.eval()
    expected = np.asarray(subject.call(ours.module, ours.x))
    got = subject.call(twin(subject, ours).eval(), input_of(ours)).detach()
    got = got.permute(0, 2, 3, 1) if got.dim() == 4 else got
    assert relative_error(got.numpy(), expected) <= tolerance("output", "float32")


def test_each_kind_of_block_is_timed():
    """See the names above: one of each kind."""
    assert {name: find_block(name).kind for name in KINDS.values()} == {name: kind for kind, name in KINDS.items()}
    assert {entry.kind for entry in BLOCKS} == set(KINDS)


def test_a_network_trains_on_both_sides():
    subject = Subject("network/channel", 3)
    ours = Ours(subject, 1)
    assert list(ours.works) == [FORWARD, BACKWARD, STEP]
    theirs = Theirs(subject, ours, WRITTEN, "cpu")
    for works in (ours.works, theirs.works):
        assert list(works) == [FORWARD, BACKWARD, STEP]
        for work in works.values():
            work()


def test_a_form_that_a_twin_lacks_does_no_work():
    forms = {
        name: [form for form in FORMS if has_form(*of(Subject(name, 2, SMALL)), form)]
        for name in ("block/cbam", "block/multi_head", "block/conv_multi_head", "block/additive")
    }
    assert forms == {
        "block/cbam": [WRITTEN, "channels_last", COMPILED],
        "block/multi_head": [WRITTEN, COMPILED, FUSED],
        "block/conv_multi_head": [WRITTEN, "channels_last", COMPILED, FUSED, TUTORIAL],
        "block/additive": [WRITTEN, COMPILED],
    }


def of(subject):
    ours = Ours(subject, 1)
    return twin(subject, ours), input_of(ours)


def test_costs_of_a_convolution_counted_by_hand():
    """The gate is a 1x1 convolution: 2 b h w c c operations forward, twice as many backward."""
    subject = Subject("block/pointwise_spatial", 2, SMALL)
    ours = Ours(subject, 1)
    needed = costs(subject, ours)
    assert needed[FORWARD][0] == 2 * 2 * 4 * 5 * 16 * 16
    assert needed[BACKWARD][0] == 3 * needed[FORWARD][0]
    parameters = sum(parameter.numel() for parameter in twin(subject, ours).parameters())
    assert needed[FORWARD][1] == 4 * (2 * 2 * 4 * 5 * 16 + parameters)
    assert needed[BACKWARD][1] == 2 * needed[FORWARD][1]


def test_what_the_twin_keeps_for_its_backward_pass():
    """Additive attention keeps its hidden features and the weights, and little else."""
    subject = Subject("block/additive", 2, SMALL)
    ours = Ours(subject, 1)
    hidden = twin(subject, ours).w_q.out_features
    least = 4 * 2 * (4 * 5) ** 2 * (hidden + 1)
    assert least < held_bytes(subject, ours) < 3 * least


def test_networks_are_those_that_train_has():
    assert "network/csra" not in find_subjects(["*csra*"])


def test_work_that_fails_in_its_process_says_why():
    with pytest.raises(RuntimeError, match=r"^ValueError: channels must be "):
        peak(Subject("block/eca", 2, (4, 4, 0)), OURS)


def test_names_and_patterns():
    assert find_subjects(["cbam"]) == ["block/cbam", "network/cbam"]
    assert find_subjects(["network/c*"])[:2] == ["network/cnn", "network/cbam"]
    assert {"block/eca", "network/cnn", "network/sensor"} <= set(find_subjects([]))

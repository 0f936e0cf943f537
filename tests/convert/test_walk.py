"""Walking a module: depth, which rule converts a nested layer, and rules that would lose or change a number."""

import numpy as np
import pytest
from flax import nnx

import flax_attn
from flax_attn.convert import Entry, rule


class Kernel(nnx.Module):
    def __init__(self, *shapes):
        for index, shape in enumerate(shapes):
            setattr(self, f"kernel{index}", nnx.Param(np.zeros(shape, np.float32)))


def nested(depth):
    module = Kernel((2,))
    for _ in range(depth):
        module = nnx.Dict(a=module)
    return module


def test_paths_have_at_most_64_segments_before_the_name():
    rule(Kernel)(lambda layer: [Entry("weight", layer.kernel0)])
    assert list(flax_attn.to_torch(nested(64))) == ["a." * 64 + "weight"]
    with pytest.raises(ValueError, match=r"module must be a tree, got one that contains itself at 'a\.a\.a\.a\.a'$"):
        flax_attn.to_torch(nested(65))


def test_a_module_that_holds_itself():
    module = nnx.Dict()
    module.me = module
    with pytest.raises(ValueError, match=r"contains itself at 'me\.me\.me\.me\.me'$"):
        flax_attn.to_torch(module)


class Middle(nnx.Module):
    def __init__(self):
        self.inner = Kernel((2,))


class Outer(nnx.Module):
    def __init__(self):
        self.middle = Middle()


def test_the_outermost_rule_speaks_for_what_it_lists():
    rule(Outer)(lambda layer: [Entry("outer", layer.middle.inner.kernel0)])
    rule(Middle)(lambda layer: [Entry("middle", layer.inner.kernel0)])
    rule(Kernel)(lambda layer: [Entry("weight", layer.kernel0)])
    assert list(flax_attn.to_torch(Outer())) == ["outer"]


def test_a_small_and_a_large_variable_in_one_entry():
    def join(small, large):
        return np.concatenate([small, large])

    rule(Kernel)(lambda layer: [Entry("both", [layer.kernel0, layer.kernel1], join, lambda both: np.split(both, [3]))])
    assert flax_attn.to_torch(Kernel((3,), (307,)))["both"].shape == (310,)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
def test_a_kernel_that_comes_back_transposed_is_recognised_by_its_shape(shape):
    rule(Kernel)(lambda layer: [Entry("weight", layer.kernel0, np.transpose)])
    with pytest.raises(ValueError, match="from_torch of 'weight' must give Flax's shape"):
        flax_attn.to_torch(Kernel(shape))


@pytest.mark.parametrize(
    ("to_torch", "from_torch"),
    [
        (lambda kernel: np.pad(kernel, (0, 2)), lambda weight: weight[:-2]),
        (lambda kernel: kernel.sum(keepdims=True), lambda weight: np.arange(1, 8)),
        (lambda kernel: kernel - 1, lambda weight: weight + 1),
        (lambda kernel: kernel + 1, lambda weight: weight - 1),
    ],
    ids=["zeros added", "all in one", "one less", "one more"],
)
def test_a_rule_that_does_more_than_rearrange_is_refused(to_torch, from_torch):
    rule(Kernel)(lambda layer: [Entry("weight", layer.kernel0, to_torch, from_torch)])
    with pytest.raises(ValueError, match="of 'weight' must rearrange and undo each other"):
        flax_attn.to_torch(Kernel((7,)))


def test_entries_in_place_of_another_are_followed_too():
    def wrong(layer):
        instead = Entry("turned", layer.kernel0, np.transpose)
        yield Entry("weight", layer.kernel0, instead=(instead,))

    rule(Kernel)(wrong)
    with pytest.raises(ValueError, match="from_torch of 'turned' must give Flax's shape"):
        flax_attn.to_torch(Kernel((3, 5)))


def test_one_entry_has_one_dtype():
    def mixed(layer):
        layer.kernel1.set_value(np.ones(3, np.int32))
        yield Entry("both", [layer.kernel0, layer.kernel1], lambda *two: np.concatenate(two), lambda a: np.split(a, 2))

    rule(Kernel)(mixed)
    with pytest.raises(ValueError, match="variables of 'both' must have one dtype, got float32 and int32"):
        flax_attn.to_torch(Kernel((3,), (3,)))


class Held(nnx.Module):
    def __init__(self):
        self.inner = Kernel((3,), (3,))


@pytest.fixture
def together_or_apart():
    @rule(Kernel)
    def kernel(layer):
        instead = (Entry("first", layer.kernel0), Entry("second", layer.kernel1))
        both = [layer.kernel0, layer.kernel1]
        yield Entry("both", both, lambda *two: np.concatenate(two), lambda both: np.split(both, 2), instead=instead)


@pytest.mark.usefixtures("together_or_apart")
def test_entries_in_place_of_another_are_taken_where_they_are_given_alone():
    first, second = np.arange(3, dtype=np.float32), np.arange(3, 6, dtype=np.float32)
    apart = flax_attn.from_torch(Held(), {"inner.first": first, "inner.second": second})
    np.testing.assert_array_equal(apart.inner.kernel1, second)
    together = flax_attn.from_torch(Held(), {"inner.both": np.concatenate([first, second])})
    np.testing.assert_array_equal(together.inner.kernel1, second)
    assert list(flax_attn.to_torch(apart)) == ["inner.both"]


@pytest.mark.usefixtures("together_or_apart")
def test_entries_beside_the_one_whose_place_they_could_take_are_left_over():
    given = {"inner.both": np.zeros(6, np.float32), "inner.first": np.zeros(3, np.float32)}
    with pytest.raises(ValueError, match=r"inner\.first: expected no such entry") as error:
        flax_attn.from_torch(Held(), given)
    assert "inner.both" not in str(error.value)
    with pytest.raises(ValueError, match=r"inner\.second: expected shape \(3,\), got nothing$"):
        flax_attn.from_torch(Held(), {"inner.first": np.zeros(3, np.float32)})


def test_flags_are_converted_too():
    class Flags(nnx.Module):
        def __init__(self):
            self.flags = nnx.BatchStat(np.zeros(3, np.bool_))

    rule(Flags)(lambda layer: [Entry("flags", layer.flags)])
    flags = flax_attn.from_torch(Flags(), {"flags": np.array([True, False, True])})
    assert flags.flags[...].tolist() == [True, False, True]

"""`flax_attn.Options`: every public class takes them, says where they are explained, and refuses what is none."""

import importlib
import inspect
import pkgutil
import re

import pytest
from flax import nnx

import flax_attn
from flax_attn import Options, layers
from torch_ref.cases import CASES

# What a constructor needs, by the name of the parameter; every other one has a default.
SIZES = {"kernel_size": (1, 1), "temperature": 1.0, "train_shape": (9, 5), "ratio": 2, "reduction_ratio": 2}

# Without parameters, they take neither options nor, but for dropout, random streams.
BARE = (layers.AdaptiveAvgPool, layers.AvgPool, layers.Dropout, layers.GELU, layers.MaxPool)


def public_classes():
    modules = [layers]
    for folder in ("blocks", "networks"):
        for found in pkgutil.iter_modules(importlib.import_module(f"flax_attn.{folder}").__path__):
            modules.append(importlib.import_module(f"flax_attn.{folder}.{found.name}"))
    classes = {
        value
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, nnx.Module) and not name.startswith("_")
    }
    return sorted(
        (cls for cls in classes if cls.__module__.startswith("flax_attn") and cls not in BARE),
        key=lambda cls: cls.__name__,
    )


def arguments(cls):
    case = next((case for case in CASES if case.class_name == cls.__name__), None)
    if case is not None and "block" not in case.args:
        return case.args
    return {
        name: SIZES.get(name, 16)
        for name, parameter in inspect.signature(cls.__init__).parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in ("self", "rngs", "options")
    }


@pytest.mark.parametrize("cls", public_classes())
def test_options_are_taken_and_nothing_else_is(cls):
    given = dict.fromkeys(Options.__annotations__) | {"param_dtype": "bfloat16"}
    nnx.eval_shape(lambda: cls(**arguments(cls), **given, rngs=nnx.Rngs(0)))
    message = re.escape(f"{cls.__name__}.__init__() got an unexpected keyword argument 'dtyp'")
    with pytest.raises(TypeError, match=message):
        cls(**arguments(cls), dtyp="float32", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("cls", public_classes())
def test_random_streams_are_required(cls):
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'rngs'"):
        cls(**arguments(cls))


@pytest.mark.parametrize("cls", public_classes())
def test_help_says_where_the_options_are_explained(cls):
    assert "rngs, **options: see `flax_attn.Options`" in cls.__doc__
    assert set(Options.__annotations__) <= set(re.findall(r"^ +(\w+): ", flax_attn.Options.__doc__, flags=re.M))
